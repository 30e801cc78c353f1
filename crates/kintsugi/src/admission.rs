//! What an `AdmissionConfiguration` says of plugins: what webhooks of admission are shown (the users of a kubeconfig), and what
//! Pod Security does where labels say nothing.
//!
//! What such a file asks for and we do not do is refused by name.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use api::admit::PodSecurity;
use api::{Introduced, Introductions};
use client::Users;
use model::Tree;
use serde::{Deserialize, Serialize};

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
    configuration: Option<Tree>,
}

/// `PodSecurityConfiguration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Security {
    api_version: String,
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

/// `ResourceQuotaConfiguration`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Quota {
    api_version: String,
    kind: String,
    #[serde(default)]
    limited_resources: Vec<Tree>,
}

/// What the file says.
#[derive(Default)]
pub struct Said {
    /// What webhooks are shown.
    pub introduced: Introduced,
    /// What is said of pods.
    pub security: PodSecurity,
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

/// What the file says of plugins; nothing without one.
pub fn said(file: Option<&Path>) -> Result<Said> {
    let mut said = Said::default();
    let Some(file) = file else { return Ok(said) };
    let using = || format!("cannot use {}", file.display());
    let configuration: AdmissionConfiguration = read(file)?;
    known(&configuration.api_version, &configuration.kind, "AdmissionConfiguration").with_context(using)?;
    for plugin in configuration.plugins {
        let name = plugin.name.clone();
        read_plugin(file, plugin, &mut said).with_context(|| name).with_context(using)?;
    }
    Ok(said)
}

/// The plugins that a file configures.
const CONFIGURED: [&str; 4] =
    ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook", "PodSecurity", "ResourceQuota"];

fn read_plugin(file: &Path, plugin: Plugin, said: &mut Said) -> Result<()> {
    let name = plugin.name.as_str();
    ensure!(CONFIGURED.contains(&name), "the admission plugin {name:?} is not configured by a file here");
    let configuration = match (plugin.configuration, plugin.path.as_str()) {
        (Some(_), path) if !path.is_empty() => bail!("it has both a path and a configuration"),
        (Some(configuration), _) => Some(configuration),
        (None, "") => None,
        (None, path) => Some(read(&file.parent().unwrap_or(Path::new("")).join(path))?),
    };
    let Some(text) = configuration else { return Ok(()) };
    match name {
        "MutatingAdmissionWebhook" => said.introduced.mutating = Arc::new(introductions(text)?),
        "ValidatingAdmissionWebhook" => said.introduced.validating = Arc::new(introductions(text)?),
        "PodSecurity" => said.security = security(text)?,
        _ => {
            let quota: Quota = serde_json::from_value(text)?;
            known(&quota.api_version, &quota.kind, "ResourceQuotaConfiguration")?;
            ensure!(
                quota.limited_resources.is_empty(),
                "limitedResources: resources that need a quota are not done here"
            );
        }
    }
    Ok(())
}

fn security(text: Tree) -> Result<PodSecurity> {
    const GROUP: &str = "pod-security.admission.config.k8s.io";
    let said: Security = serde_json::from_value(text)?;
    let (api_version, kind) = (&said.api_version, &said.kind);
    let is_known =
        ["v1", "v1beta1", "v1alpha1"].iter().any(|version| *api_version == format!("{GROUP}/{version}"));
    ensure!(
        is_known && kind == "PodSecurityConfiguration",
        "it is {kind:?} of {api_version:?} and not PodSecurityConfiguration of {GROUP}/v1"
    );
    let read = serde_json::json!({"defaults": said.defaults, "exemptions": said.exemptions});
    PodSecurity::read(&read).map_err(anyhow::Error::msg)
}

fn introductions(text: Tree) -> Result<Introductions> {
    let webhooks: Webhooks = serde_json::from_value(text)?;
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
        let shown = credentials(kubeconfig, identity)
            .with_context(|| format!("the user {name:?}"))
            .with_context(using)?;
        introductions.by_target.insert(name, shown);
    }
    if let Some(identity) = users.current {
        introductions.otherwise = credentials(kubeconfig, identity).with_context(using)?;
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
        let told = said(Some(&dir.path().join("admission.yaml"))).map(|said| {
            said.introduced
                .mutating
                .to("hook.n.svc", 443)
                .token
                .as_ref()
                .map_or(String::new(), |token| token.now().expect("a file of ours").into_owned())
        });
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
        check(
            &of("{name: ImagePolicyWebhook, configuration: {}}"),
            Err("\"ImagePolicyWebhook\" is not configured"),
        );
        let quota = |more: &str| {
            of(&format!(
                "{{name: ResourceQuota, configuration: {{apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration, {more}}}}}"
            ))
        };
        check(&quota(""), Ok(""));
        check(&quota("limitedResources: [{resource: pods}]"), Err("limitedResources"));
        let security = |more: &str| {
            of(&format!(
                "{{name: PodSecurity, configuration: {{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, {more}}}}}"
            ))
        };
        check(
            &security(
                "defaults: {enforce: baseline, enforce-version: latest}, exemptions: {namespaces: [kube-system]}",
            ),
            Ok(""),
        );
        check(&security("defaults: {enforce: typo}"), Err("defaults.enforce: Invalid value"));
        check(&security("defaults: {enforced: baseline}"), Err("enforced"));
        check(&of("{name: MutatingAdmissionWebhook, path: gone.yaml}"), Err("cannot read"));
    }
}
