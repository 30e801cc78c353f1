//! What webhooks of admission are shown: the users of a kubeconfig that an `AdmissionConfiguration` names.
//!
//! What such a file asks for and we do not do is refused by name.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use api::{Introduced, Introductions};
use client::Users;
use serde::Deserialize;

use crate::strangers::{beside, credentials};

const GROUP_VERSION: &str = "apiserver.config.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    /// The file of its configuration.
    #[serde(default)]
    path: String,
    /// Or its configuration.
    configuration: Option<Webhooks>,
}

/// `WebhookAdmissionConfiguration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhooks {
    api_version: String,
    kind: String,
    #[serde(default)]
    kube_config_file: String,
}

/// What the file asks to show to whom; nothing to anybody without one.
pub fn introduced(file: Option<&Path>) -> Result<Introduced> {
    let mut introduced = Introduced::default();
    let Some(file) = file else { return Ok(introduced) };
    let using = || format!("cannot use {}", file.display());
    let configuration: AdmissionConfiguration = read(file)?;
    known(&configuration.api_version, &configuration.kind, "AdmissionConfiguration").with_context(using)?;
    for plugin in configuration.plugins {
        let place = match plugin.name.as_str() {
            "MutatingAdmissionWebhook" => &mut introduced.mutating,
            "ValidatingAdmissionWebhook" => &mut introduced.validating,
            other => {
                bail!("{}: the admission plugin {other:?} is not configured by a file here", file.display())
            }
        };
        *place =
            Arc::new(introductions(file, &plugin).with_context(|| plugin.name.clone()).with_context(using)?);
    }
    Ok(introduced)
}

fn introductions(file: &Path, plugin: &Plugin) -> Result<Introductions> {
    let written: Webhooks;
    let webhooks = match (&plugin.configuration, plugin.path.as_str()) {
        (Some(webhooks), "") => webhooks,
        (None, "") => return Ok(Introductions::default()),
        (None, path) => {
            written = read(&file.parent().unwrap_or(Path::new("")).join(path))?;
            &written
        }
        (Some(_), _) => bail!("it has both a path and a configuration"),
    };
    known(&webhooks.api_version, &webhooks.kind, "WebhookAdmissionConfiguration")?;
    let kubeconfig = Path::new(&webhooks.kube_config_file);
    if webhooks.kube_config_file.is_empty() {
        return Ok(Introductions::default());
    }
    ensure!(
        kubeconfig.is_absolute(),
        "kubeConfigFile: {}: must be an absolute file path",
        kubeconfig.display()
    );
    let text = fs::read(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let using = || format!("cannot use {}", kubeconfig.display());
    let users = Users::from_kubeconfig(&text, &|path| beside(kubeconfig, path)).with_context(using)?;
    let mut introductions = Introductions::default();
    for (name, identity) in users.by_name {
        let shown =
            credentials(identity).with_context(|| format!("the user {name:?}")).with_context(using)?;
        introductions.by_target.insert(name, shown);
    }
    if let Some(identity) = users.current {
        introductions.otherwise = credentials(identity).with_context(using)?;
    }
    Ok(introductions)
}

fn known(api_version: &str, kind: &str, wanted: &str) -> Result<()> {
    ensure!(
        (api_version, kind) == (GROUP_VERSION, wanted),
        "it is {kind:?} of {api_version:?} and not {wanted} of {GROUP_VERSION}"
    );
    Ok(())
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("cannot use {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a webhook at `hook.n.svc` is shown by files of these texts, with `DIR` for their folder.
    fn check(text: &str, wanted: Result<&str, &str>) {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let write = |name: &str, text: &str| {
            let text = text.replace("DIR", &dir.path().display().to_string());
            fs::write(dir.path().join(name), text).expect("a folder of our own");
        };
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: ";
        write(
            "hooks.yaml",
            &format!("{head}WebhookAdmissionConfiguration\nkubeConfigFile: DIR/kubeconfig\n"),
        );
        write(
            "kubeconfig",
            "{apiVersion: v1, kind: Config, users: [{name: '*.n.svc', user: {token: t}}, {name: x, user: {}}]}",
        );
        write("admission.yaml", &format!("{head}{text}"));
        let told = introduced(Some(&dir.path().join("admission.yaml")))
            .map(|introduced| introduced.mutating.to("hook.n.svc", 443).token.clone().unwrap_or_default());
        match (told, wanted) {
            (Ok(shown), wanted) => assert_eq!(Ok(shown.as_str()), wanted, "{text}"),
            (Err(why), wanted) => {
                let why = format!("{why:#}");
                assert!(wanted.is_err_and(|wanted| why.contains(wanted)), "{text}: {why}");
            }
        }
    }

    #[test]
    fn webhooks_are_shown_what_the_file_says_and_the_rest_is_refused() {
        let of = |plugin: &str| format!("AdmissionConfiguration\nplugins: [{plugin}]");
        let inline = "apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration";
        check("AdmissionConfiguration\n", Ok(""));
        check(&of("{name: MutatingAdmissionWebhook, path: hooks.yaml}"), Ok("t"));
        check(&of("{name: ValidatingAdmissionWebhook, path: hooks.yaml}"), Ok(""));
        check(
            &of(&format!(
                "{{name: MutatingAdmissionWebhook, configuration: {{{inline}, kubeConfigFile: DIR/kubeconfig}}}}"
            )),
            Ok("t"),
        );
        check(
            &of(&format!(
                "{{name: MutatingAdmissionWebhook, configuration: {{{inline}, kubeConfigFile: kubeconfig}}}}"
            )),
            Err("must be an absolute file path"),
        );
        check(&of("{name: EventRateLimit, path: x}"), Err("the admission plugin \"EventRateLimit\""));
        check("WebhookAdmissionConfiguration\n", Err("not AdmissionConfiguration"));
        check(&of("{name: MutatingAdmissionWebhook, path: gone.yaml}"), Err("cannot read"));
    }
}
