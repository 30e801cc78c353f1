//! Who says what may be done: the authorizers that the settings name, or a file with an `AuthorizationConfiguration`.
//!
//! What such a file asks for and we do not do is refused by name. It is read again while the server runs: what is good takes
//! effect, what is not changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use api::auth::outside::{AccessSettings, AccessWebhook};
use api::auth::{Authorizer, Chain};
use api::dial::Dial;
use api::outbound;
use host::Host;
use serde::Deserialize;

use crate::settings::Rights;
use crate::strangers::Program;

const GROUP_VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// How long an answer may take at most that a file gives a time for, and how long those of the flags may: upstream's.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// How often the file is looked at. Upstream looks once a minute and is told by the kernel between; half would be noticed by
/// nobody, double is long for who waits for a right.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a yes and a no are remembered unless a file says so: upstream's.
const AUTHORIZED_TTL: Duration = Duration::from_secs(300);
const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AuthorizationConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Configured>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configured {
    #[serde(default, rename = "type")]
    of: String,
    #[serde(default)]
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    #[serde(default, rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(default)]
    cache_authorized_requests: Option<bool>,
    #[serde(default, rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    #[serde(default)]
    cache_unauthorized_requests: Option<bool>,
    #[serde(default)]
    timeout: String,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    connection_info: Option<ConnectionInfo>,
    #[serde(default)]
    match_conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionInfo {
    #[serde(default, rename = "type")]
    of: String,
    kube_config_file: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    expression: String,
}

/// Those who say what may be done, as the settings name them, and what keeps them as a file says.
pub fn chain(host: &Host, dial: &Arc<dyn Dial>, rights: &Rights) -> Result<(Chain, Option<Reloader>)> {
    let asking = Asking { host: host.clone(), dial: dial.clone() };
    let Some(file) = &rights.authorization_config else {
        return Ok((Chain::new(asking.of_modes(rights)?), None));
    };
    let begun = Reloader::begin(asking, file).with_context(|| format!("cannot use {}", file.display()))?;
    Ok((begun.chain.clone(), Some(begun)))
}

/// Keeps those who are asked as a file says.
pub struct Reloader {
    asking: Asking,
    file: PathBuf,
    chain: Chain,
    /// What was read last, or why it could not be.
    seen: Result<String, String>,
    /// What took effect last.
    loaded: AuthorizationConfiguration,
    /// Those beside webhooks that are there since the start.
    own: BTreeSet<String>,
}

impl Reloader {
    fn begin(asking: Asking, file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)?;
        let loaded = AuthorizationConfiguration::read(&text)?;
        let chain = Chain::new(asking.of_configuration(&loaded)?);
        Ok(Self { asking, file: file.to_owned(), chain, seen: Ok(text), own: loaded.own(), loaded })
    }

    /// Looks at the file until its task is dropped.
    pub async fn run(mut self) {
        let host = self.asking.host.clone();
        loop {
            host.sleep(LOOK_EVERY).await;
            self = host
                .blocking(move || {
                    self.look();
                    self
                })
                .await;
        }
    }

    /// Takes up what the file says, when that is new and good.
    fn look(&mut self) {
        let read = fs::read_to_string(&self.file).map_err(|error| error.to_string());
        if read == self.seen {
            return;
        }
        self.seen = read;
        let now = self.asking.host.now();
        match self.reload() {
            Ok(None) => {}
            Ok(Some(authorizers)) => {
                tracing::info!(file = %self.file.display(), "who is asked what may be done has changed");
                self.chain.replace(Some(authorizers), now);
            }
            Err(why) => {
                let why = format!("{why:#}");
                tracing::error!(file = %self.file.display(), why, "who is asked what may be done stays as it was");
                self.chain.replace(None, now);
            }
        }
    }

    /// Who is to be asked from now on; `None` where the file says the same in other words.
    fn reload(&mut self) -> Result<Option<Vec<Authorizer>>> {
        let text = self.seen.as_ref().map_err(|why| anyhow::Error::msg(why.clone()))?;
        let configuration = AuthorizationConfiguration::read(text)?;
        if configuration == self.loaded {
            return Ok(None);
        }
        let authorizers = self.asking.of_configuration(&configuration)?;
        let own = configuration.own();
        let missing: Vec<&String> = self.own.difference(&own).collect();
        ensure!(missing.is_empty(), "authorizers: Required value: must include {missing:?}");
        let new = own.difference(&self.own).find(|of| matches!(of.as_str(), "Node" | "RBAC"));
        if let Some(new) = new {
            bail!("authorizers: {new} was not among them when the server started: restart it");
        }
        self.loaded = configuration;
        Ok(Some(authorizers))
    }
}

impl AuthorizationConfiguration {
    fn read(text: &str) -> Result<Self> {
        let configuration: Self = serde_saphyr::from_str(text)?;
        let (api_version, kind) = (&configuration.api_version, &configuration.kind);
        ensure!(
            GROUP_VERSIONS.contains(&api_version.as_str()) && kind == "AuthorizationConfiguration",
            "it is {kind:?} of {api_version:?} and not AuthorizationConfiguration of {}",
            GROUP_VERSIONS[0]
        );
        Ok(configuration)
    }

    /// The types of those who are asked, beside webhooks.
    fn own(&self) -> BTreeSet<String> {
        self.authorizers.iter().map(|one| one.of.clone()).filter(|of| of != "Webhook").collect()
    }
}

struct Asking {
    host: Host,
    dial: Arc<dyn Dial>,
}

impl Asking {
    fn of_modes(&self, rights: &Rights) -> Result<Vec<Authorizer>> {
        let modes = &rights.authorization_mode;
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for mode in modes {
            ensure!(seen.insert(mode), "--authorization-mode: {mode} is named twice");
            all.push(match (plain(mode), mode.as_str(), &rights.authorization_webhook_config_file) {
                (Some(own), ..) => own,
                (None, "Webhook", Some(file)) => {
                    let program = Program::read(file)?;
                    self.webhook(AccessSettings {
                        name: "default".to_owned(),
                        url: program.url,
                        authorities: program.authorities,
                        credentials: program.credentials,
                        timeout: TIMEOUT_MAX,
                        authorized_ttl: duration(&rights.authorization_webhook_cache_authorized_ttl)
                            .context("--authorization-webhook-cache-authorized-ttl")?,
                        unauthorized_ttl: duration(&rights.authorization_webhook_cache_unauthorized_ttl)
                            .context("--authorization-webhook-cache-unauthorized-ttl")?,
                        is_beta: is_beta(&rights.authorization_webhook_version)
                            .context("--authorization-webhook-version")?,
                        denies_on_failure: false,
                        conditions: Vec::new(),
                    })?
                }
                (None, "Webhook", None) => {
                    bail!("--authorization-mode Webhook needs --authorization-webhook-config-file")
                }
                (None, other, _) => bail!("--authorization-mode: {}", unknown(other)),
            });
        }
        ensure!(
            rights.authorization_webhook_config_file.is_none() || modes.iter().any(|mode| mode == "Webhook"),
            "--authorization-webhook-config-file needs Webhook in --authorization-mode"
        );
        Ok(all)
    }

    fn of_configuration(&self, configuration: &AuthorizationConfiguration) -> Result<Vec<Authorizer>> {
        ensure!(
            !configuration.authorizers.is_empty(),
            "authorizers: Required value: at least one authorization mode must be defined"
        );
        let (mut types, mut names, mut all) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (index, one) in configuration.authorizers.iter().cloned().enumerate() {
            let at = format!("authorizers[{index}]");
            ensure!(!one.of.is_empty(), "{at}.type: Required value");
            ensure!(!one.name.is_empty(), "{at}.name: Required value");
            ensure!(
                is_name(&one.name),
                "{at}.name: Invalid value: {:?}: authorizer name is invalid",
                one.name
            );
            ensure!(names.insert(one.name.clone()), "{at}.name: Duplicate value: {:?}", one.name);
            let is_first = types.insert(one.of.clone());
            ensure!(is_first || one.of == "Webhook", "{at}.type: Duplicate value: {:?}", one.of);
            all.push(match (plain(&one.of), one.of.as_str(), one.webhook) {
                (Some(own), _, None) => own,
                (Some(_), _, Some(_)) => {
                    bail!(
                        "{at}.webhook: Invalid value: \"non-null\": may only be specified when type=Webhook"
                    )
                }
                (None, "Webhook", Some(webhook)) => {
                    let settings = webhook.settings(one.name).with_context(|| at.clone())?;
                    self.webhook(settings).with_context(|| at)?
                }
                (None, "Webhook", None) => bail!("{at}.webhook: Required value: required when type=Webhook"),
                (None, other, _) => bail!("{at}.type: {}", unknown(other)),
            });
        }
        Ok(all)
    }

    fn webhook(&self, settings: AccessSettings) -> Result<Authorizer> {
        let outbound = outbound(&self.host, self.dial.clone());
        AccessWebhook::new(settings, outbound)
            .map(|webhook| Authorizer::Webhook(Arc::new(webhook)))
            .map_err(anyhow::Error::msg)
    }
}

impl Webhook {
    /// What it says, once it is known to be sound: by the rules of upstream.
    fn settings(self, name: String) -> Result<AccessSettings> {
        let ttl = |said: Option<String>, is_on: Option<bool>, otherwise: Duration, field: &str| {
            let ttl = match said.as_deref() {
                None | Some("" | "0s") => otherwise,
                Some(text) => duration(text).with_context(|| field.to_owned())?,
            };
            anyhow::Ok(if is_on.unwrap_or(true) { ttl } else { Duration::ZERO })
        };
        ensure!(!self.timeout.is_empty(), "timeout: Required value");
        let timeout = duration(&self.timeout).context("timeout")?;
        ensure!(
            !timeout.is_zero() && timeout <= TIMEOUT_MAX,
            "timeout: Invalid value: {:?}: must be > 0s and <= 30s",
            self.timeout
        );
        ensure!(!self.subject_access_review_version.is_empty(), "subjectAccessReviewVersion: Required value");
        let is_beta = is_beta(&self.subject_access_review_version).context("subjectAccessReviewVersion")?;
        match self.match_condition_subject_access_review_version.as_str() {
            "" => ensure!(
                self.match_conditions.is_empty(),
                "matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified"
            ),
            "v1" => {}
            other => bail!(
                "matchConditionSubjectAccessReviewVersion: Unsupported value: {other:?}: supported values: \"v1\""
            ),
        }
        let denies_on_failure = match self.failure_policy.as_str() {
            "Deny" => true,
            "NoOpinion" => false,
            "" => bail!("failurePolicy: Required value"),
            other => bail!(
                "failurePolicy: Unsupported value: {other:?}: supported values: \"NoOpinion\", \"Deny\""
            ),
        };
        let info = self.connection_info.context("connectionInfo.type: Required value")?;
        let program = match (info.of.as_str(), info.kube_config_file) {
            ("KubeConfigFile", Some(file)) => {
                let path = Path::new(&file);
                ensure!(
                    path.is_absolute(),
                    "connectionInfo.kubeConfigFile: Invalid value: {file:?}: must be an absolute path"
                );
                Program::read(path).context("connectionInfo.kubeConfigFile")?
            }
            ("KubeConfigFile", None) => bail!("connectionInfo.kubeConfigFile: Required value"),
            ("InClusterConfig", _) => {
                bail!("connectionInfo.type: InClusterConfig is not done here: name a kubeconfig")
            }
            ("", _) => bail!("connectionInfo.type: Required value"),
            (other, _) => bail!(
                "connectionInfo.type: Unsupported value: {other:?}: supported values: \"InClusterConfig\", \"KubeConfigFile\""
            ),
        };
        Ok(AccessSettings {
            name,
            url: program.url,
            authorities: program.authorities,
            credentials: program.credentials,
            timeout,
            authorized_ttl: ttl(
                self.authorized_ttl,
                self.cache_authorized_requests,
                AUTHORIZED_TTL,
                "authorizedTTL",
            )?,
            unauthorized_ttl: ttl(
                self.unauthorized_ttl,
                self.cache_unauthorized_requests,
                UNAUTHORIZED_TTL,
                "unauthorizedTTL",
            )?,
            is_beta,
            denies_on_failure,
            conditions: self.match_conditions.into_iter().map(|one| one.expression).collect(),
        })
    }
}

/// The authorizers that need no more than their names.
fn plain(name: &str) -> Option<Authorizer> {
    Some(match name {
        "Node" => Authorizer::Node,
        "RBAC" => Authorizer::Rbac,
        "AlwaysAllow" => Authorizer::AlwaysAllow,
        "AlwaysDeny" => Authorizer::AlwaysDeny,
        _ => return None,
    })
}

fn unknown(name: &str) -> String {
    match name {
        "ABAC" => "ABAC is not done here".to_owned(),
        other => format!(
            "Unsupported value: {other:?}: supported values: \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\""
        ),
    }
}

fn is_beta(version: &str) -> Result<bool> {
    match version {
        "v1" => Ok(false),
        "v1beta1" => Ok(true),
        other => bail!("Unsupported value: {other:?}: supported values: \"v1\", \"v1beta1\""),
    }
}

/// A length as Go writes it, such as `5m0s`.
fn duration(text: &str) -> Result<Duration> {
    let length: jiff::SignedDuration = text.parse().with_context(|| format!("{text:?} is no duration"))?;
    length.try_into().with_context(|| format!("{text:?} is less than nothing"))
}

/// Whether a text is a DNS subdomain (RFC 1123).
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use api::dial::NoDial;

    use super::*;

    const WEBHOOK: &str = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny,
        connectionInfo: {type: KubeConfigFile, kubeConfigFile: DIR/kubeconfig}";

    /// Reads a file with these authorizers.
    fn check(authorizers: &str, wanted: Result<bool, &str>) {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let kubeconfig = "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: w, cluster: {server: 'https://a.b'}}],
            contexts: [{name: c, context: {cluster: w}}]}";
        fs::write(dir.path().join("kubeconfig"), kubeconfig).expect("a folder of our own");
        let text = authorizers.replace("WEBHOOK", WEBHOOK).replace("DIR", &dir.path().display().to_string());
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{text}]\n"
        );
        let file = dir.path().join("authorization.yaml");
        fs::write(&file, text).expect("a folder of our own");
        let rights = Rights { authorization_config: Some(file), ..Rights::default() };
        let dial: Arc<dyn Dial> = Arc::new(NoDial);
        match (chain(&Host::real(), &dial, &rights), wanted) {
            (Ok((chain, _)), wanted) => assert_eq!(Ok(chain.asks_others()), wanted, "{authorizers}"),
            (Err(why), wanted) => {
                let why = format!("{why:#}");
                assert!(wanted.is_err_and(|wanted| why.contains(wanted)), "{authorizers}: {why}");
            }
        }
    }

    #[test]
    fn a_file_names_those_who_are_asked_and_what_is_not_done_is_refused() {
        check("{type: Node, name: node}, {type: RBAC, name: rbac}", Ok(false));
        check(
            "{type: Webhook, name: a, webhook: {WEBHOOK}}, {type: Webhook, name: b, webhook: {WEBHOOK}}",
            Ok(true),
        );
        check("", Err("at least one authorization mode"));
        check("{type: RBAC}", Err("authorizers[0].name: Required value"));
        check("{type: RBAC, name: a}, {type: RBAC, name: b}", Err("authorizers[1].type: Duplicate value"));
        check("{type: RBAC, name: a}, {type: Node, name: a}", Err("authorizers[1].name: Duplicate value"));
        check("{type: RBAC, name: A}", Err("authorizer name is invalid"));
        check("{type: ABAC, name: a}", Err("ABAC is not done here"));
        check("{type: Guess, name: a}", Err("authorizers[0].type: Unsupported value"));
        check("{type: RBAC, name: a, webhook: {WEBHOOK}}", Err("may only be specified when type=Webhook"));
        check("{type: Webhook, name: a}", Err("required when type=Webhook"));
    }

    #[test]
    fn a_file_that_changes_is_taken_up_when_it_is_good() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let kubeconfig = "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: w, cluster: {server: 'https://a.b'}}],
            contexts: [{name: c, context: {cluster: w}}]}";
        fs::write(dir.path().join("kubeconfig"), kubeconfig).expect("a folder of our own");
        let file = dir.path().join("authorization.yaml");
        let write = |authorizers: &str| {
            let webhook = WEBHOOK.replace("DIR", &dir.path().display().to_string());
            let text = authorizers
                .replace("WEBHOOK", &format!("{{type: Webhook, name: w, webhook: {{{webhook}}}}}"));
            let text = format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{text}]\n"
            );
            fs::write(&file, text).expect("a folder of our own");
        };
        write("{type: RBAC, name: rbac}");
        let rights = Rights { authorization_config: Some(file.clone()), ..Rights::default() };
        let dial: Arc<dyn Dial> = Arc::new(NoDial);
        let (chain, reloader) = chain(&Host::real(), &dial, &rights).expect("a good file");
        let mut reloader = reloader.expect("there is a file");
        let mut check = |asks: bool, done: u64, failed: u64| {
            reloader.look();
            // Looking twice changes nothing more.
            reloader.look();
            let told = chain.metrics();
            let counted = |status: &str, count: u64| match count {
                0 => !told.contains(status),
                count => told.contains(&format!("reloads_total{{status=\"{status}\"}} {count}\n")),
            };
            assert!(counted("success", done) && counted("failure", failed), "{done} {failed}: {told}");
            assert_eq!(chain.asks_others(), asks, "{told}");
        };
        check(false, 0, 0);
        write("WEBHOOK, {type: RBAC, name: rbac}");
        check(true, 1, 0);
        write("WEBHOOK, {type: RBAC,   name: rbac}");
        check(true, 1, 0);
        // What is not good, takes away or adds what only a start can, or is not there, changes nothing.
        write("{type: RBAC, name: rbac}, {type: Guess, name: g}");
        check(true, 1, 1);
        write("WEBHOOK");
        check(true, 1, 2);
        write("{type: RBAC, name: rbac}, {type: Node, name: node}");
        check(true, 1, 3);
        fs::remove_file(&file).expect("it is there");
        check(true, 1, 4);
        write("{type: RBAC, name: rbac}, {type: AlwaysDeny, name: deny}");
        check(false, 2, 4);
    }

    #[test]
    fn what_a_webhook_lacks_is_told() {
        let check = |change: (&str, &str), why: &str| {
            let webhook = WEBHOOK.replace(change.0, change.1);
            check(&format!("{{type: Webhook, name: a, webhook: {{{webhook}}}}}"), Err(why));
        };
        check(("timeout: 3s, ", ""), "authorizers[0]: timeout: Required value");
        check(("timeout: 3s", "timeout: 31s"), "must be > 0s and <= 30s");
        check(("Version: v1", "Version: v3"), "Unsupported value: \"v3\"");
        check(("Deny", "Guess"), "failurePolicy: Unsupported value");
        check(("KubeConfigFile,", "InClusterConfig,"), "InClusterConfig is not done here");
        check(("DIR/", ""), "must be an absolute path");
        let more = |more: &str| format!("timeout: 3s, {more}");
        check(
            ("timeout: 3s", &more("matchConditions: [{expression: 'true'}]")),
            "required if match conditions",
        );
        let conditions =
            "matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: 'request.x'}]";
        check(("timeout: 3s", &more(conditions)), "matchConditions[0].expression: Invalid value");
        check(("timeout: 3s", &more("guess: 1")), "guess");
    }

    #[test]
    fn the_flags_name_those_who_are_asked() {
        let check = |modes: &[&str], wanted: Option<&str>| {
            let authorization_mode = modes.iter().map(|&mode| mode.to_owned()).collect();
            let rights = Rights { authorization_mode, ..Rights::default() };
            let dial: Arc<dyn Dial> = Arc::new(NoDial);
            let told = chain(&Host::real(), &dial, &rights).err().map(|why| format!("{why:#}"));
            assert_eq!(told.is_some(), wanted.is_some(), "{modes:?}: {told:?}");
            assert!(told.unwrap_or_default().contains(wanted.unwrap_or_default()), "{modes:?}");
        };
        check(&["Node", "RBAC"], None);
        check(&["AlwaysAllow"], None);
        check(&["RBAC", "RBAC"], Some("named twice"));
        check(&["Webhook"], Some("needs --authorization-webhook-config-file"));
        check(&["ABAC"], Some("ABAC is not done here"));
    }
}
