//! What the scheduler promises, on tiny clusters.

use model::tiny::{TinyWorld, at, check, told};
use model::{Plan, Time, World};

use super::{reconcile, whole_cluster};

fn decide(world: &dyn World, now: Time) -> Plan {
    reconcile(&whole_cluster(), world, now)
}

const TWO: &str = r#"nodes a metadata.labels={"kubernetes.io/hostname":"a","zone":"1"} status.allocatable={"cpu":"2","memory":"4Gi","pods":"10"}
    nodes b metadata.labels={"kubernetes.io/hostname":"b","zone":"2"} status.allocatable={"cpu":"2","memory":"4Gi","pods":"10"}
    "#;

fn judge(pods: &str, expected: &str) {
    check(&format!("{TWO}{pods}"), 5, decide, expected);
}

fn asks(cpu: &str) -> String {
    format!(r#"spec.containers=[{{"name":"c","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]"#)
}

#[test]
fn a_pod_goes_where_there_is_most_room() {
    judge(
        &format!("pods x {} on=a\n pods new {}", asks("1"), asks("500m")),
        "bind pods new to b # the best node with room ! Scheduled Successfully assigned default/new to b",
    );
}

#[test]
fn two_pods_never_take_the_same_room() {
    judge(
        &format!("pods x {0}\n pods y {0}\n pods z {0}", asks("1500m")),
        r#"bind pods x to a
           bind pods y to b
           patch pods z/status {"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."}]}}"#,
    );
}

#[test]
fn the_most_urgent_pod_is_placed_first() {
    judge(
        &format!(
            "pods x {0} created@1\n pods y {0} created@2\n pods z {0} created@3 spec.priority=9",
            asks("1500m")
        ),
        "bind pods z to a
         bind pods x to b
         patch pods y/status",
    );
}

#[test]
fn pods_of_other_schedulers_and_gated_ones_are_left_alone() {
    judge(
        r#"pods x spec.schedulerName=mine
           pods y spec.schedulingGates=[{"name":"later"}]
           pods z ending@2
           pods w failed"#,
        "",
    );
}

#[test]
fn why_a_pod_stays_is_said_once_in_words_users_know() {
    let mut world = TinyWorld::read(&format!("{TWO}pods x spec.nodeSelector={{\"zone\":\"3\"}}"));
    world.apply(&decide(&world, at(5)), at(5)).expect("it may say so");
    assert!(decide(&world, at(6)).is_quiet(), "{:?}", told(&decide(&world, at(6))));
}

#[test]
fn each_reason_is_counted() {
    check(
        r#"nodes a spec.unschedulable=true
           nodes b spec.taints=[{"key":"k","effect":"NoSchedule"}]
           nodes c status.allocatable={"cpu":"1","pods":"0"}
           pods x spec.containers=[{"name":"c","resources":{"requests":{"example.com/thing":"1"}}}]"#,
        5,
        decide,
        r#"patch pods x/status {"status":{"conditions":[{"message":"0/3 nodes are available: 1 Insufficient example.com/thing, 1 Too many pods, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."}]}}"#,
    );
}

#[test]
fn host_ports_are_taken_by_one_pod_alone() {
    let port = r#"spec.containers=[{"name":"c","ports":[{"containerPort":80,"hostPort":80}]}]"#;
    judge(&format!("pods x {port} on=a\n pods y {port}\n"), "bind pods y to b");
}

#[test]
fn pods_keep_apart_and_stay_near() {
    let near = |kind: &str| {
        format!(
            r#"spec.affinity.{kind}.requiredDuringSchedulingIgnoredDuringExecution=[{{"labelSelector":{{"matchLabels":{{"app":"web"}}}},"topologyKey":"zone"}}]"#
        )
    };
    judge(
        &format!("pods x labels=app:web on=a\n pods y labels=app:web {}", near("podAntiAffinity")),
        "bind pods y to b",
    );
    judge(
        &format!("pods x labels=app:web {} on=a\n pods y labels=app:web", near("podAntiAffinity")),
        "bind pods y to b",
    );
    judge(&format!("pods x labels=app:web on=b\n pods y {}", near("podAffinity")), "bind pods y to b");
    judge(&format!("pods y labels=app:web {}", near("podAffinity")), "bind pods y to a");
    judge(
        &format!("pods y {}", near("podAffinity")),
        r#"patch pods y/status {"status":{"conditions":[{"message":"0/2 nodes are available: 2 node(s) didn't match pod affinity rules. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."}]}}"#,
    );
}

#[test]
fn a_required_spread_is_kept_within_its_skew() {
    let even = r#"labels=app:web spec.topologySpreadConstraints=[{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"app":"web"}}}]"#;
    judge(
        &format!("pods x {even} on=b\n pods y {even}\n pods z {even}\n pods big {} on=a", asks("1")),
        "bind pods y to a
         bind pods z to b",
    );
}

#[test]
fn pods_of_one_owner_are_spread() {
    judge(
        "pods x owner=replicasets/web\n pods y owner=replicasets/web\n pods z owner=replicasets/web\n pods w owner=replicasets/web",
        "bind pods w to a
         bind pods x to b
         bind pods y to a
         bind pods z to b",
    );
}

#[test]
fn a_wish_of_a_node_to_be_left_alone_is_heeded() {
    check(
        r#"nodes a spec.taints=[{"key":"k","effect":"PreferNoSchedule"}] status.allocatable={"cpu":"9","memory":"9Gi","pods":"9"}
           nodes b status.allocatable={"cpu":"1","memory":"1Gi","pods":"9"}
           pods x"#,
        5,
        decide,
        "bind pods x to b",
    );
}

#[test]
fn the_least_important_pod_makes_room() {
    judge(
        &format!(
            "pods low {0} spec.priority=1 on=a
             pods mid {0} spec.priority=2 on=b
             pods high {0} spec.priority=9",
            asks("1500m")
        ),
        r#"patch pods low/status {"status":{"conditions":[{"type":"DisruptionTarget","status":"True","reason":"PreemptionByScheduler"}]}}
           delete pods low # a more urgent pod needs its room
           patch pods high/status {"status":{"nominatedNodeName":"a"}}"#,
    );
}

#[test]
fn a_budget_is_broken_only_when_nothing_else_helps() {
    judge(
        &format!(
            r#"pods low labels=app:db {0} spec.priority=1 on=a
               pods mid {0} spec.priority=2 on=b
               pods high {0} spec.priority=9
               poddisruptionbudgets db spec.selector.matchLabels.app=db status.disruptionsAllowed=0"#,
            asks("1500m")
        ),
        "patch pods mid/status
         delete pods mid
         patch pods high/status",
    );
}

#[test]
fn room_that_is_being_made_is_not_given_away() {
    judge(
        &format!(
            "pods low {0} spec.priority=1 on=a ending@4
             pods mid {0} spec.priority=2 on=b
             pods high {0} spec.priority=9 status.nominatedNodeName=a
             pods small {1} spec.priority=1",
            asks("1500m"),
            asks("400m")
        ),
        r#"patch pods high/status {"status":{"conditions":[{"message":"0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node."}]}}
           bind pods small to b"#,
    );
}

#[test]
fn a_bound_volume_decides_the_node() {
    judge(
        r#"pods x spec.volumes=[{"name":"v","persistentVolumeClaim":{"claimName":"data"}}]
           persistentvolumeclaims data spec.volumeName=pv status.phase=Bound
           persistentvolumes pv spec.nodeAffinity.required.nodeSelectorTerms=[{"matchExpressions":[{"key":"zone","operator":"In","values":["2"]}]}]"#,
        "bind pods x to b",
    );
}

#[test]
fn a_claim_that_waits_for_its_pod_is_told_the_node_first() {
    judge(
        r#"pods x spec.volumes=[{"name":"v","persistentVolumeClaim":{"claimName":"data"}}]
           persistentvolumeclaims data spec.storageClassName=local
           storageclasses local volumeBindingMode=WaitForFirstConsumer"#,
        r#"patch persistentvolumeclaims data {"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"a"}}}"#,
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_waits_it_ends_quiet_and_no_node_holds_too_much(
        pods in proptest::collection::vec((1_i64..20, 0_i32..4), 0..14)
    ) {
        let mut text = TWO.to_owned();
        for (n, (tenths, priority)) in pods.iter().enumerate() {
            text.push_str(&format!("pods p{n} {} spec.priority={priority}\n", asks(&format!("{}m", tenths * 100))));
        }
        let mut world = TinyWorld::read(&text);
        world.settle(60, at(9), |world| decide(world, at(9)));
        for node in ["a", "b"] {
            let pods = world.list(&model::kinds::POD, "");
            let facts = pods.iter().filter_map(|pod| pod.seen::<crate::facts::Facts>());
            let on_node = facts.filter(|facts| facts.fit.node == node);
            let used: i64 = on_node.map(|facts| facts.fit.requests["cpu"].milli_value()).sum();
            assert!(used <= 2000, "{node} holds {used}m");
        }
    }
}

const CLAIMS: &str = r#"persistentvolumes v1 spec.csi={"driver":"d","volumeHandle":"h1"}
    persistentvolumes v2 spec.csi={"driver":"d","volumeHandle":"h2"}
    persistentvolumeclaims c1 spec.volumeName=v1 status.phase=Bound
    persistentvolumeclaims c2 spec.volumeName=v2 status.phase=Bound
    "#;

fn with_claim(name: &str, more: &str, claim: &str) -> String {
    format!(
        r#"pods {name} {more} spec.volumes=[{{"name":"v","persistentVolumeClaim":{{"claimName":"{claim}"}}}}]
    "#
    )
}

#[test]
fn a_node_takes_as_many_volumes_as_its_driver_says() {
    let one = r#"csinodes a spec.drivers=[{"name":"d","nodeID":"a","allocatable":{"count":1}}]
        csinodes b spec.drivers=[{"name":"d","nodeID":"b","allocatable":{"count":1}}]
        "#;
    let there = format!("{}{}", with_claim("x", "on=a", "c1"), with_claim("y", "on=b", "c1"));
    judge(
        &format!("{CLAIMS}{one}{there}{}", with_claim("new", "", "c2")),
        r#"patch pods new/status {"status":{"conditions":[{"type":"PodScheduled","reason":"Unschedulable","message":"0/2 nodes are available: 2 node(s) exceed max volume count. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."}]}}"#,
    );
    // A volume that is there already takes no room.
    let there = format!("{}{}", with_claim("x", "on=a", "c2"), with_claim("y", "on=b", "c1"));
    let bound = |node: &str| {
        format!(
            "bind pods new to {node} # the best node with room ! Scheduled Successfully assigned default/new to {node}"
        )
    };
    judge(&format!("{CLAIMS}{one}{there}{}", with_claim("new", "", "c2")), &bound("a"));
    let two = one.replacen("1}", "2}", 1);
    judge(&format!("{CLAIMS}{two}{there}{}", with_claim("new", "", "c1")), &bound("a"));
}

#[test]
fn a_claim_waits_for_a_node_with_room_for_its_volume() {
    let class = r#"storageclasses fast provisioner=d volumeBindingMode=WaitForFirstConsumer
        csidrivers d spec.storageCapacity=true
        persistentvolumeclaims c1 spec.storageClassName=fast spec.resources.requests.storage=5Gi
        "#;
    let room = |size: &str| {
        format!(
            r#"csistoragecapacities r storageClassName=fast capacity={size} nodeTopology={{"matchLabels":{{"zone":"2"}}}}
        "#
        )
    };
    judge(
        &format!("{class}{}{}", room("10Gi"), with_claim("new", "", "c1")),
        r#"patch persistentvolumeclaims c1 {"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"b"}}}"#,
    );
    judge(
        &format!("{class}{}{}", room("1Gi"), with_claim("new", "", "c1")),
        r#"patch pods new/status {"status":{"conditions":[{"message":"0/2 nodes are available: 2 node(s) did not have enough free storage. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."}]}}"#,
    );
    let elsewhere = class.replace(
        "provisioner=d",
        r#"provisioner=d allowedTopologies=[{"matchLabelExpressions":[{"key":"zone","values":["1"]}]}]"#,
    );
    judge(
        &format!(
            "{}{}",
            elsewhere.replace("storageCapacity=true", "storageCapacity=false"),
            with_claim("new", "", "c1")
        ),
        r#"patch persistentvolumeclaims c1 {"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"a"}}}"#,
    );
}
