//! Real containers on this machine, driven by real `kubectl`: what the README promises, as a user would see it.

mod adopt;
mod agents;
mod audit;
mod bad_luck;
mod clients;
mod csi;
mod drills;
mod extend;
mod fence;
mod harness;
mod heal;
mod images;
mod joining;
mod ladder;
mod objects;
mod outage;
mod outside;
mod pods;
mod rights;
mod servers;
mod services;
mod silence;
mod storing;
mod strangers;
mod streams;
mod volumes;
mod webhook_rights;
mod why;

use harness::Cluster;

/// A Deployment of three behind a Service.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: kintsugi.dev/demo/web:latest
          imagePullPolicy: IfNotPresent
          args: ['8080']
          readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
          livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
";

/// How many of a Deployment's pods are Ready.
const READY: &str = "jsonpath={.status.readyReplicas}";
/// Which containers run in the pods, and how often they were restarted.
const RESTARTS: &str = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}{'\\n'}{end}";

/// A cluster of its own with the Deployment up.
fn with_web() -> Cluster {
    let cluster = Cluster::start(1);
    cluster.import_demo_image();
    cluster.apply(WEB);
    cluster.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    cluster
}
