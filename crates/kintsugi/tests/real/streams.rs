//! Logs, exec, attach and port-forward.

use serde_json::json;

use crate::harness::{Space, tool_pod, web_pod};

#[test]
fn logs_are_followed_cut_and_kept_after_the_container_is_gone() {
    let space = Space::new("logs");
    space.apply(tool_pod("counter", "count 20 then exit 4"));
    space.until_value("pod/counter", "{.status.containerStatuses[0].containerID}", |id| !id.is_empty());
    let followed = space.kubectl(&["logs", "-f", "counter"]);
    let all: String = (1..=20).map(|number| format!("line {number}\n")).collect();
    assert_eq!(followed, all);
    space.until_value("pod/counter", "{.status.phase}", |phase| phase == "Failed");
    assert_eq!(space.kubectl(&["logs", "counter"]), all);
    assert_eq!(space.kubectl(&["logs", "counter", "--tail=2"]), "line 19\nline 20\n");
    assert_eq!(space.kubectl(&["logs", "counter", "--limit-bytes=7"]), "line 1\n");
    let stamped = space.kubectl(&["logs", "counter", "--timestamps", "--tail=1"]);
    assert!(stamped.contains("T") && stamped.ends_with("Z line 20\n"), "{stamped}");
    assert_eq!(space.value("pod/counter", "{.status.containerStatuses[0].state.terminated.exitCode}"), "4");
}

#[test]
fn the_previous_container_keeps_its_words() {
    let space = Space::new("previous");
    let mut pod = tool_pod("twice", "list /scratch then write /scratch/been x then sleep");
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    let refused = space.kubectl_refused(&["logs", "twice", "--previous"], "");
    assert!(refused.contains("not found"), "{refused}");
    space.start(&pod);
    space.until(&["logs", "twice"], |out| out == "\n");
    let refused = space.kubectl_refused(&["logs", "twice", "--previous"], "");
    assert!(
        refused.contains("previous terminated container \"main\" in pod \"twice\" not found"),
        "{refused}"
    );
    let words =
        ["/kintsugi", "tool", "list", "/scratch", "then", "write", "/scratch/been", "x", "then", "sleep"];
    crate::harness::signal(crate::harness::process_of("twice", &words), libc::SIGTERM);
    space.until(&["logs", "twice"], |out| out == "been\n");
    assert_eq!(space.kubectl(&["logs", "twice", "--previous"]), "\n");
}

#[test]
fn commands_run_in_a_container_with_their_streams_and_exit_codes() {
    let space = Space::new("exec");
    space.start(&web_pod("web"));
    let exec = |steps: &str, input: &str| {
        let words = [vec!["exec", "-i", "web", "--"], crate::harness::tool(steps)].concat();
        let output = space.kubectl_output(&words, input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(exec("echo hello", ""), (Some(0), "hello\n".into(), String::new()));
    let (code, out, err) = exec("complain oh then exit 7", "");
    assert_eq!((code, out.as_str()), (Some(7), ""));
    assert!(err.starts_with("oh\n"), "{err}");
    let long: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let (code, out, _) = exec("cat", &long);
    assert!(code == Some(0) && out == long, "{} of {} bytes came back", out.len(), long.len());
    let missing = space.kubectl_refused(&["exec", "web", "--", "/no/such/program"], "");
    assert!(missing.contains("/no/such/program"), "{missing}");
    let missing = space.kubectl_refused(&["exec", "nobody", "--", "/kintsugi"], "");
    assert!(missing.contains("not found"), "{missing}");
}

#[test]
fn a_container_is_attached_to_while_it_runs() {
    let space = Space::new("attach");
    let mut pod = tool_pod("parrot", "cat then echo bye");
    pod["spec"]["containers"][0]["stdin"] = json!(true);
    pod["spec"]["containers"][0]["stdinOnce"] = json!(true);
    space.start(&pod);
    let mut attached = space.cluster().kubectl_beside(&["-n", space.name(), "attach", "-i", "parrot"]);
    attached.write("polly\n");
    attached.until(|out| out.contains("polly"));
    assert!(attached.end().success());
    space.until_value("pod/parrot", "{.status.phase}", |phase| phase == "Succeeded");
    assert_eq!(space.kubectl(&["logs", "parrot"]), "polly\nbye\n");
}

#[test]
fn a_port_is_forwarded_to_a_pod() {
    let space = Space::new("forward");
    space.start(&web_pod("web"));
    let forwarding =
        space.cluster().kubectl_beside(&["-n", space.name(), "port-forward", "pod/web", ":8080"]);
    let said = forwarding.until(|out| out.contains("127.0.0.1:") && out.contains(" -> "));
    let port = said.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    for _ in 0..5 {
        let body = space.cluster().until_http(&format!("127.0.0.1:{port}"), "/", |_| true);
        assert!(body.starts_with("web "), "{body}");
    }
}
