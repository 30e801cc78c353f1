//! Objects in the short form that scenarios write them in. Pure.
//!
//! A workload says `replicas`, `image`, `runs` (what its container does), `init`, `readiness`, `liveness`, `startup`
//! (a probe's period), `grace`, `restart`, `spread`, `labels`, `service` (a port: a Service of the same name comes with
//! it); whatever else it wants goes into `spec` and `pod`, which are merged over the rest. Other kinds are written out.

use anyhow::{Context, Result, bail};
use model::kinds::Kind;
use model::{Gvr, Tree, kinds};
use serde_json::json;

use crate::observe::kind_named;

/// An object that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Of which resource.
    pub gvr: Gvr,
    /// In which namespace; empty for cluster-wide ones.
    pub namespace: String,
    /// The whole.
    pub object: Tree,
}

/// The objects that one entry stands for: `deployment web` or `job shop/once`, and what is said of it.
pub fn expand(head: &str, said: &Tree) -> Result<Vec<Wanted>> {
    let (kind, name) = head.split_once(' ').with_context(|| format!("{head:?} is no kind and name"))?;
    let kind = kind_named(kind)?;
    let (namespace, name) = match name.split_once('/') {
        _ if !kind.namespaced => ("", name),
        Some(both) => both,
        None => ("default", name),
    };
    let short = Short { kind, namespace, name, said };
    let mut all = vec![short.wanted()?];
    if let Some(port) = said.get("service").filter(|_| kind.singular != "pod") {
        all.push(short.service(port));
    }
    Ok(all)
}

struct Short<'a> {
    kind: &'static Kind,
    namespace: &'a str,
    name: &'a str,
    said: &'a Tree,
}

impl Short<'_> {
    fn wanted(&self) -> Result<Wanted> {
        let mut object = json!({
            "apiVersion": self.kind.gvr.api_version(), "kind": self.kind.kind,
            "metadata": {"name": self.name, "labels": self.labels()},
        });
        if self.kind.namespaced {
            object["metadata"]["namespace"] = json!(self.namespace);
        }
        match self.kind.singular {
            "pod" => object["spec"] = self.pod()?,
            "deployment" | "replicaset" | "statefulset" | "daemonset" => object["spec"] = self.workload()?,
            "job" => object["spec"] = self.job()?,
            "service" => object["spec"] = self.service_spec(self.said.get("port").unwrap_or(&json!(80))),
            "poddisruptionbudget" => object["spec"] = self.budget()?,
            _ => merge(&mut object, self.said),
        }
        if let Some(spec) = self.said.get("spec") {
            merge(&mut object["spec"], spec);
        }
        if let Some(metadata) = self.said.get("metadata") {
            merge(&mut object["metadata"], metadata);
        }
        Ok(Wanted { gvr: self.kind.gvr.clone(), namespace: self.namespace.to_owned(), object })
    }

    fn app(&self) -> &str {
        self.said["app"].as_str().unwrap_or(self.name)
    }

    fn labels(&self) -> Tree {
        let mut labels = json!({"app": self.app()});
        merge(&mut labels, &self.said["labels"]);
        labels
    }

    fn workload(&self) -> Result<Tree> {
        let mut spec =
            json!({"selector": {"matchLabels": {"app": self.app()}}, "template": self.template()?});
        if self.kind.singular != "daemonset" {
            spec["replicas"] = self.said.get("replicas").cloned().unwrap_or(json!(1));
        }
        if self.kind.singular == "statefulset" {
            spec["serviceName"] = json!(self.name);
        }
        Ok(spec)
    }

    fn job(&self) -> Result<Tree> {
        let mut spec = json!({"template": self.template()?});
        if spec["template"]["spec"]["restartPolicy"].is_null() {
            spec["template"]["spec"]["restartPolicy"] = json!("Never");
        }
        for (from, to) in
            [("completions", "completions"), ("parallelism", "parallelism"), ("retries", "backoffLimit")]
        {
            if let Some(value) = self.said.get(from) {
                spec[to] = value.clone();
            }
        }
        Ok(spec)
    }

    fn template(&self) -> Result<Tree> {
        Ok(json!({"metadata": {"labels": self.labels()}, "spec": self.pod()?}))
    }

    fn pod(&self) -> Result<Tree> {
        let said = self.said;
        let image = said["image"].as_str().unwrap_or("web:1");
        let mut main = container("main", image, &said["runs"])?;
        // A program is given one period to begin to serve before it is restarted.
        for (word, probe, path, failures) in [
            ("readiness", "readinessProbe", "/main/ready", 1),
            ("liveness", "livenessProbe", "/main/healthy", 2),
            ("startup", "startupProbe", "/main/ready", 30),
        ] {
            if let Some(wish) = said.get(word) {
                main[probe] = probe_of(wish, path, failures)?;
            }
        }
        let mut spec = json!({"containers": [main]});
        let init = said["init"].as_array().into_iter().flatten().enumerate();
        let init = init.map(|(at, runs)| container(&format!("init-{at}"), image, runs));
        spec["initContainers"] = init.collect::<Result<_>>()?;
        if let Some(grace) = said.get("grace") {
            spec["terminationGracePeriodSeconds"] = json!(seconds(grace)?);
        }
        if let Some(restart) = said.get("restart") {
            spec["restartPolicy"] = restart.clone();
        }
        if said["spread"] == "node" {
            spec["topologySpreadConstraints"] = json!([{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": self.app()}},
            }]);
        }
        merge(&mut spec, &said["pod"]);
        Ok(spec)
    }

    fn budget(&self) -> Result<Tree> {
        let mut spec = json!({"selector": {"matchLabels": {"app": self.app()}}});
        for (from, to) in [("min", "minAvailable"), ("most", "maxUnavailable")] {
            if let Some(value) = self.said.get(from) {
                spec[to] = value.clone();
            }
        }
        Ok(spec)
    }

    fn service(&self, port: &Tree) -> Wanted {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": self.namespace}, "spec": self.service_spec(port),
        });
        Wanted { gvr: kinds::SERVICE.clone(), namespace: self.namespace.to_owned(), object }
    }

    fn service_spec(&self, port: &Tree) -> Tree {
        json!({"selector": {"app": self.app()}, "ports": [{"port": port, "targetPort": 80}]})
    }
}

fn container(name: &str, image: &str, runs: &Tree) -> Result<Tree> {
    let args = match runs {
        Tree::Null => json!([]),
        Tree::String(one) => json!([one]),
        Tree::Array(many) => json!(many),
        other => bail!("{other} says nothing of what a container does"),
    };
    Ok(json!({"name": name, "image": image, "args": args}))
}

/// A probe: a period (`1s`), or a whole one whose handler is filled in where it has none.
fn probe_of(wish: &Tree, path: &str, failures: u32) -> Result<Tree> {
    let get = json!({"path": path, "port": 80});
    let mut probe = json!({"httpGet": get, "failureThreshold": failures, "timeoutSeconds": 1});
    match wish {
        Tree::Object(fields) => {
            if fields.contains_key("exec") || fields.contains_key("tcpSocket") {
                probe["httpGet"] = Tree::Null;
            }
            merge(&mut probe, wish);
        }
        period => probe["periodSeconds"] = json!(seconds(period)?),
    }
    Ok(probe)
}

fn seconds(time: &Tree) -> Result<u64> {
    let text = time.as_str().with_context(|| format!("{time} is no length of time"))?;
    Ok(crate::words::duration(text)?.as_secs())
}

/// Merges one tree over another (RFC 7396).
pub fn merge(into: &mut Tree, from: &Tree) {
    let Tree::Object(fields) = from else {
        if !from.is_null() {
            *into = from.clone();
        }
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        match value {
            Tree::Null => {
                if let Some(map) = into.as_object_mut() {
                    map.remove(name);
                }
            }
            value => merge(&mut into[name], value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(head: &str, said: Tree) -> Tree {
        expand(head, &said).expect("a good object").swap_remove(0).object
    }

    #[test]
    fn a_deployment_is_one_line() {
        let web = one("deployment web", json!({"replicas": 3, "readiness": "1s", "runs": "exit 1 after 3s"}));
        assert_eq!((&web["kind"], &web["spec"]["replicas"]), (&json!("Deployment"), &json!(3)));
        let container = &web["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            (&container["args"], &container["readinessProbe"]["periodSeconds"]),
            (&json!(["exit 1 after 3s"]), &json!(1))
        );
        assert_eq!(web["spec"]["selector"]["matchLabels"], web["spec"]["template"]["metadata"]["labels"]);
    }

    #[test]
    fn a_service_comes_with_a_workload_that_asks_for_it() {
        let all = expand("deployment shop/web", &json!({"service": 8080})).expect("a good object");
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[1].namespace.as_str(), &all[1].object["spec"]["ports"][0]["port"]),
            ("shop", &json!(8080))
        );
    }

    #[test]
    fn kinds_without_a_short_form_are_written_out() {
        let map = one("configmap settings", json!({"data": {"a": "b"}}));
        assert_eq!((&map["data"]["a"], &map["metadata"]["name"]), (&json!("b"), &json!("settings")));
        assert!(expand("dragon x", &json!({})).is_err());
    }
}
