//! `kintsugi drill`: what is broken on purpose heals, and a cluster that is not well is left alone.

use crate::harness::Cluster;

#[test]
fn drills_break_a_cluster_in_a_namespace_of_their_own_and_say_what_came_of_it() {
    let cluster = Cluster::start(1);
    let names = ["container-killed", "pod-deleted", "readiness-failing", "liveness-failing", "server-paused"];
    let output = cluster.binary_act(&[&["drill", "run"][..], &names].concat());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // On a busy machine a promise of milliseconds may be broken; that it healed, and was measured, may not.
    assert!(!err.contains("kintsugi: "), "{out}{err}");
    for name in names {
        let row =
            out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}:\n{out}{err}"));
        assert!(row.ends_with("  kept") || row.contains("  BROKEN: promised "), "{row}");
    }
    assert_eq!(output.status.success(), !out.contains("BROKEN"), "{out}");
    cluster.until(&["get", "namespaces", "-o", "name"], |all| !all.contains("kintsugi-drill"));
}

#[test]
fn a_drill_is_refused_where_it_could_meet_a_real_failure() {
    let cluster = Cluster::start(1);
    let refused = |words: &[&str], why: &str| {
        let output = cluster.binary_act(words);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && err.contains(why), "{err}");
    };
    refused(&["drill", "run", "nonsense"], "there is no drill \"nonsense\"");
    refused(&["drill", "run", "node-cut"], "node-cut needs 3 nodes, there are 1");
    let alarm = "apiVersion: healing.kintsugi.dev/v1alpha1\nkind: Repair\nmetadata: {name: alarm, namespace: kube-system}\n\
        spec: {subject: {kind: Cluster, name: cluster}, fault: WorldLooksWrong, evidence: 3 of 5}\nstatus: {outcome: Suppressed}\n";
    cluster.apply(alarm);
    refused(&["drill", "run", "pod-deleted"], "the world looks wrong (3 of 5)");
    cluster.until(&["get", "namespaces", "-o", "name"], |all| !all.contains("kintsugi-drill"));
}
