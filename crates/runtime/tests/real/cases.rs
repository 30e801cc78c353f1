//! What the runtime promises, with real containers.

use std::time::Duration;

use bytes::Bytes;
use runtime::*;
use tokio::io::AsyncReadExt;

use crate::disks::*;
use crate::world::*;

macro_rules! cases {
    ($($name:ident)*) => {
        /// All tests by name.
        pub const ALL: &[(&str, Case)] = &[$((stringify!($name), |world| Box::pin($name(world)))),*];
    };
}

cases! {
    a_container_runs_prints_and_ends
    a_container_sees_its_own_world_only
    what_the_kernel_tells_of_the_machine_is_masked
    the_default_filter_refuses_what_reaches_the_kernel
    an_unconfined_container_may_and_an_absent_profile_refuses
    users_groups_and_capabilities_are_as_asked
    a_root_that_must_be_read_only_is
    volumes_devices_and_links_are_where_they_should
    a_killed_container_is_told_at_once_and_starts_again
    a_program_that_is_missing_refuses_the_start
    memory_beyond_the_limit_is_an_oom_kill
    limits_can_change_while_it_runs
    exec_runs_inside_and_ends_with_its_code
    exec_that_is_given_up_is_killed
    exec_streams_both_ways_with_and_without_a_terminal
    attach_joins_the_first_process
    a_port_of_the_pod_can_be_reached
    logs_follow_until_the_end_and_outlive_the_container
    logs_rotate_and_are_read_through
    a_new_agent_adopts_what_runs
    a_killed_monitor_takes_its_containers_along
    containers_of_a_pod_share_what_they_should
    sysctls_of_the_machine_are_refused
    a_termination_message_is_read
    an_image_in_use_is_not_removed
    an_image_is_shown_as_a_folder_that_nobody_changes
    images_are_imported_from_layouts_and_archives
    images_are_pulled_once_and_checked
    removing_twice_and_the_unknown_is_no_harm
    a_privileged_container_sees_the_devices
    no_container_gets_hold_of_the_machine_by_its_monitor
    a_fenced_pods_file_system_takes_nothing_more
    what_others_use_is_not_shut_down
}

async fn a_container_runs_prints_and_ends(world: World) {
    let sandbox = world.sandbox("pod-1").await;
    assert!(sandbox.alive && sandbox.netns.is_some_and(|path| path.exists()));
    let (exit, log) =
        world.run(world.spec("pod-1", "main", &["print", "one", "complain", "two", "exit", "3"])).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, None, false));
    assert!(log == "one\ntwo\n" || log == "two\none\n", "{log}");
    world.runtime.remove_sandbox("pod-1").await.expect("it can be removed");
    assert!(world.runtime.sandboxes().await.expect("they can be listed").is_empty());
}

async fn a_container_sees_its_own_world_only(world: World) {
    let words = [
        "show",
        "/proc/sys/kernel/hostname",
        "list",
        "/sys/class/net",
        "show",
        "/proc/1/cmdline",
        "print",
        "",
    ];
    let log = world.output("pod", |_| {}, &words).await;
    let mut lines = log.splitn(3, '\n');
    let (name, links) = (lines.next(), lines.next().unwrap_or_default());
    // Some kernels give every namespace their idle tunnels.
    let mut others = links.split(' ').filter(|link| !["sit0", "tunl0", "ip6tnl0", "gre0"].contains(link));
    assert_eq!((name, others.next(), others.next()), (Some("host-of-pod"), Some("lo"), None), "{log:?}");
    assert!(lines.next().is_some_and(|command| command.starts_with("/app\0")), "{log:?}");
    let log = world.output("pod-2", |_| {}, &["list", "/", "env", "HOSTNAME", "env", "HOME", "cwd"]).await;
    let want = "app bin dev etc lib lib64 proc root run sys tmp usr var";
    let names = log.lines().next().unwrap_or_default();
    assert!(names.split(' ').all(|name| want.split(' ').any(|w| w == name)), "{names}");
    assert!(log.ends_with("host-of-pod-2\n/root\n/\n"), "{log}");
    let settings = |spec: &mut ContainerSpec| {
        spec.env = vec!["COLOUR=blue".to_owned()];
        spec.working_dir = "/made/anew".to_owned();
    };
    let log = world.output("pod-3", settings, &["env", "COLOUR", "cwd", "list", "/sys/fs/cgroup"]).await;
    assert!(log.starts_with("blue\n/made/anew\n") && log.lines().count() == 3, "{log}");
}

async fn what_the_kernel_tells_of_the_machine_is_masked(world: World) {
    let words = ["list", "/sys/firmware", "show", "/proc/keys", "write", "/proc/sys/kernel/hostname", "x"];
    let log = world.output("pod", |_| {}, &words).await;
    let keys =
        log.strip_prefix('\n').and_then(|log| log.strip_suffix("read-only filesystem or storage medium\n"));
    // Not every kernel has keys to show.
    assert!(keys.is_some_and(|keys| ["", "entity not found\n"].contains(&keys)), "{log:?}");
}

async fn the_default_filter_refuses_what_reaches_the_kernel(world: World) {
    let words = ["mount", "unshare", "keyctl", "mknod", "mkdir", "/made", "ids"];
    for strict in [false, true] {
        let uid = format!("pod-{strict}");
        let log = world.output(&uid, |spec| spec.security.no_new_privileges = strict, &words).await;
        let denied = "permission denied\n".repeat(4);
        assert!(log.starts_with(&format!("{denied}done\n")), "{log}");
        assert!(
            log.contains("Seccomp: 2") && log.contains(&format!("NoNewPrivs: {}", u8::from(strict))),
            "{log}"
        );
    }
}

async fn an_unconfined_container_may_and_an_absent_profile_refuses(world: World) {
    let unconfined = |spec: &mut ContainerSpec| {
        spec.security.seccomp = Seccomp::Unconfined;
        spec.security.capabilities_add = vec!["SYS_ADMIN".to_owned()];
    };
    let log = world.output("pod-1", unconfined, &["mount", "ids"]).await;
    assert!(log.starts_with("done\n") && log.contains("Seccomp: 0"), "{log}");
    let mut spec = world.spec("pod-1", "absent", &["wait"]);
    spec.security.seccomp = Seccomp::Localhost("/nowhere.json".into());
    let error = world.runtime.start(spec).await.expect_err("it must be refused");
    assert!(matches!(error, RuntimeError::Config(_)), "{error:?}");
    let profile = world.dir.join("profile.json");
    let text =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, text).expect("it can be written");
    let own = |spec: &mut ContainerSpec| spec.security.seccomp = Seccomp::Localhost(profile);
    assert_eq!(world.output("pod-2", own, &["mkdir", "/made"]).await, "permission denied\n");
}

async fn users_groups_and_capabilities_are_as_asked(world: World) {
    let log = world.output("pod-1", |_| {}, &["ids"]).await;
    assert!(log.contains("Uid: 0 0 0 0") && log.contains("CapEff: 00000000a80425fb"), "{log}");
    let other = |spec: &mut ContainerSpec| {
        spec.security.user = Some(1000);
        spec.security.group = Some(2000);
        spec.security.groups = vec![3000, 4000];
        spec.security.capabilities_drop = vec!["ALL".to_owned()];
        spec.security.capabilities_add = vec!["NET_BIND_SERVICE".to_owned()];
    };
    let log = world.output("pod-2", other, &["ids", "write", "/root/a", "x"]).await;
    let want = ["Uid: 1000 1000", "Gid: 2000 2000", "Groups: 3000 4000", "CapEff: 0000000000000000"];
    assert!(want.iter().all(|want| log.contains(want)) && log.contains("CapBnd: 0000000000000400"), "{log}");
    assert!(log.ends_with("permission denied\n"), "{log}");
    let mut spec = world.spec("pod-2", "root", &["wait"]);
    spec.security.must_not_be_root = true;
    assert!(matches!(world.runtime.start(spec).await, Err(RuntimeError::Config(_))));
}

async fn a_root_that_must_be_read_only_is(world: World) {
    let words = ["write", "/etc/made", "x", "write", "/dev/shm/made", "x"];
    let log = world.output("pod", |spec| spec.security.readonly_root = true, &words).await;
    assert_eq!(log, "read-only filesystem or storage medium\ndone\n");
}

async fn volumes_devices_and_links_are_where_they_should(world: World) {
    let source = world.dir.join("volume");
    std::fs::create_dir(&source).expect("a folder");
    std::fs::write(source.join("file"), "from outside\n").expect("it can be written");
    let mount = |source: std::path::PathBuf, target: &str, readonly| Mount {
        source,
        target: target.into(),
        readonly,
        recursive: true,
        propagation: "private".to_owned(),
    };
    let mounts = vec![
        mount(source.clone(), "/data", false),
        mount(source.clone(), "/fixed", true),
        mount(source.join("file"), "/etc/deep/file", true),
        mount("tmpfs:4096".into(), "/memory", false),
    ];
    let words = [
        "show",
        "/data/file",
        "write",
        "/data/made",
        "x",
        "write",
        "/fixed/made",
        "x",
        "show",
        "/etc/deep/file",
        "write",
        "/memory/a",
        "x",
        "list",
        "/dev",
    ];
    let log = world.output("pod", |spec| spec.mounts = mounts, &words).await;
    let want = "from outside\ndone\nread-only filesystem or storage medium\nfrom outside\ndone\n";
    let devices = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n";
    assert_eq!(log, format!("{want}{devices}"));
    assert!(source.join("made").exists());
    let mut spec = world.spec("pod", "lost", &["wait"]);
    spec.mounts = vec![mount("/nowhere".into(), "/data", false)];
    assert!(matches!(world.runtime.start(spec).await, Err(RuntimeError::Config(_))));
}

async fn a_killed_container_is_told_at_once_and_starts_again(world: World) {
    world.sandbox("pod").await;
    let mut events = world.runtime.events();
    for attempt in 0..3 {
        let mut spec = world.spec("pod", "main", &["wait"]);
        spec.attempt = attempt;
        let status = world.runtime.start(spec).await.expect("it starts");
        world.runtime.signal(&status.container, libc::SIGKILL).await.expect("it can be killed");
        let exit = exit_of(&mut events, &status.container).await;
        assert_eq!((exit.code, exit.signal), (137, Some(libc::SIGKILL)));
    }
    let sandboxes = world.runtime.sandboxes().await.expect("they can be listed");
    let attempts: Vec<u32> = sandboxes[0].containers.iter().map(|container| container.attempt).collect();
    assert_eq!(attempts, [0, 1, 2]);
    for container in &sandboxes[0].containers {
        world.runtime.remove(&container.container).await.expect("it can be removed");
    }
    assert!(world.runtime.sandboxes().await.expect("they can be listed")[0].containers.is_empty());
}

async fn a_program_that_is_missing_refuses_the_start(world: World) {
    world.sandbox("pod").await;
    let mut spec = world.spec("pod", "main", &[]);
    spec.args = vec!["nothing-of-this-name".to_owned()];
    let error = world.runtime.start(spec.clone()).await.expect_err("there is no such program");
    let RuntimeError::Start(why) = error else { panic!("{error:?}") };
    assert!(why.contains("executable file not found in $PATH"), "{why}");
    spec.args = vec!["/etc/passwd".to_owned()];
    let error = world.runtime.start(spec).await.expect_err("it is no program");
    assert!(error.to_string().contains("permission denied"), "{error}");
    assert!(world.runtime.sandboxes().await.expect("they can be listed")[0].containers.is_empty());
}

async fn memory_beyond_the_limit_is_an_oom_kill(world: World) {
    world.sandbox("pod").await;
    let mut spec = world.spec("pod", "main", &["eat", "512"]);
    spec.resources.memory_limit = Some(32 << 20);
    let (exit, _) = world.run(spec).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

async fn limits_can_change_while_it_runs(world: World) {
    world.sandbox("pod").await;
    let mut spec = world.spec("pod", "main", &["print", "up", "line", "eat", "64", "exit", "0"]);
    spec.stdin = true;
    spec.resources =
        Resources { memory_limit: Some(32 << 20), cpu_limit_millis: Some(500), ..Resources::default() };
    let mut events = world.runtime.events();
    let status = world.runtime.start(spec).await.expect("it starts");
    let more = Resources { memory_limit: Some(256 << 20), pids_limit: Some(100), ..Resources::default() };
    world.runtime.resize(&status.container, more).await.expect("it can grow");
    let usage = world.runtime.usage("pod").await.expect("it runs");
    assert!(usage.len() == 1 && usage[0].memory > 0 && usage[0].cpu_nanos > 0, "{usage:?}");
    let attach = AttachSpec { stdin: true, tty: false };
    let streams = world.runtime.attach(&status.container, attach).await.expect("it runs");
    streams.stdin.expect("it is open").send(Bytes::from_static(b"go\n")).await.expect("it listens");
    assert_eq!(exit_of(&mut events, &status.container).await.code, 0);
}

async fn exec_runs_inside_and_ends_with_its_code(world: World) {
    world.sandbox("pod").await;
    let mut spec = world.spec("pod", "main", &["wait"]);
    spec.env = vec!["COLOUR=blue".to_owned()];
    spec.security.user = Some(1000);
    let status = world.runtime.start(spec).await.expect("it starts");
    let run = |words: &[&str], len_max| {
        let command = ["/app", "app"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        let (world, container) = (world.clone(), status.container.clone());
        async move { soon(world.runtime.exec(&container, command, len_max)).await }
    };
    let done =
        run(&["env", "COLOUR", "ids", "show", "/proc/1/cmdline", "exit", "7"], 4096).await.expect("it runs");
    let text = String::from_utf8_lossy(&done.output);
    assert_eq!(done.code, 7);
    assert!(
        text.starts_with("blue\nUid: 1000") && text.contains("Seccomp: 2") && text.ends_with("wait\0"),
        "{text}"
    );
    let done = run(&["flood", "10000"], 100).await.expect("it runs");
    assert_eq!((done.code, done.output.len()), (0, 100));
    let missing = world.runtime.exec(&status.container, vec!["nothing".to_owned()], 10).await;
    assert!(matches!(missing, Err(RuntimeError::Start(_))), "{missing:?}");
    let unknown = ContainerRef { id: "0".repeat(64), ..status.container.clone() };
    let missing = world.runtime.exec(&unknown, vec!["/app".to_owned()], 10).await;
    assert!(matches!(missing, Err(RuntimeError::NotFound(_))), "{missing:?}");
}

async fn exec_that_is_given_up_is_killed(world: World) {
    world.sandbox("pod").await;
    let status = world.runtime.start(world.spec("pod", "main", &["wait"])).await.expect("it starts");
    let command: Vec<String> = ["/app", "app", "print", "up", "wait"].map(String::from).to_vec();
    let exec = world.runtime.exec(&status.container, command, 100);
    assert!(tokio::time::timeout(Duration::from_millis(200), exec).await.is_err());
    // The monitor answers in order, so by the second answer the first command has been killed.
    let count = || async {
        let words: Vec<String> = ["/app", "app", "list", "/proc"].map(String::from).to_vec();
        let done = soon(world.runtime.exec(&status.container, words, 4096)).await.expect("it runs");
        let text = String::from_utf8_lossy(&done.output).into_owned();
        text.split_whitespace().filter(|name| name.parse::<u32>().is_ok()).count()
    };
    soon(async { while count().await > 2 {} }).await;
}

async fn exec_streams_both_ways_with_and_without_a_terminal(world: World) {
    world.sandbox("pod").await;
    let status = world.runtime.start(world.spec("pod", "main", &["wait"])).await.expect("it starts");
    let spec = |words: &[&str], tty| ExecSpec {
        command: ["/app", "app"].iter().chain(words).map(|word| (*word).to_owned()).collect(),
        tty,
        stdin: true,
    };
    let words = ["tty", "complain", "oh", "line", "cat", "exit", "4"];
    let streams = world.runtime.exec_stream(&status.container, spec(&words, false)).await.expect("it runs");
    let stdin = streams.stdin.expect("it is open");
    stdin.send(Bytes::from_static(b"hello\n")).await.expect("it listens");
    drop(stdin);
    let got = drain(streams.output).await;
    assert_eq!(got, ("no terminal\ngot hello\n".to_owned(), "oh\n".to_owned(), Some(4)));

    let words = ["tty", "line", "size", "exit", "5"];
    let streams = world.runtime.exec_stream(&status.container, spec(&words, true)).await.expect("it runs");
    streams.resize.send((132, 43)).await.expect("it listens");
    let mut output = streams.output;
    assert!(
        matches!(soon(output.recv()).await, Some(StreamOutput::Stdout(text)) if text.starts_with(b"a terminal"))
    );
    let stdin = streams.stdin.expect("it is open");
    stdin.send(Bytes::from_static(b"hello\n")).await.expect("it listens");
    let (out, err, code) = drain(output).await;
    assert!(out.contains("got hello") && out.contains("132 columns, 43 rows") && err.is_empty(), "{out}");
    assert_eq!(code, Some(5));
}

async fn attach_joins_the_first_process(world: World) {
    world.sandbox("pod").await;
    for (name, tty) in [("plain", false), ("terminal", true)] {
        let mut spec = world.spec("pod", name, &["tty", "line", "print", "bye", "exit", "6"]);
        (spec.stdin, spec.stdin_once, spec.tty) = (true, true, tty);
        let status = world.runtime.start(spec).await.expect("it starts");
        let streams =
            world.runtime.attach(&status.container, AttachSpec { stdin: true, tty }).await.expect("it runs");
        streams.stdin.expect("it is open").send(Bytes::from_static(b"hi\n")).await.expect("it listens");
        let (out, _, code) = drain(streams.output).await;
        assert!(out.contains("got hi") && out.contains("bye"), "{out}");
        assert_eq!(code, Some(6));
        let log = world.log("pod", name, None).await;
        assert!(log.contains(if tty { "a terminal" } else { "no terminal" }) && log.contains("bye"), "{log}");
    }
}

async fn a_port_of_the_pod_can_be_reached(world: World) {
    world.sandbox("pod").await;
    world.runtime.start(world.spec("pod", "main", &["serve", "8080"])).await.expect("it starts");
    let mut stream = soon(async {
        loop {
            if let Ok(stream) = world.runtime.connect("pod", 8080).await {
                break stream;
            }
        }
    })
    .await;
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.expect("it talks");
    assert_eq!(text, "hello from inside");
    assert!(world.runtime.connect("pod", 8081).await.is_err());
}

async fn logs_follow_until_the_end_and_outlive_the_container(world: World) {
    world.sandbox("pod").await;
    let mut spec = world.spec("pod", "main", &["print", "one", "line", "begin", "two", "exit", "0"]);
    spec.stdin = true;
    let status = world.runtime.start(spec).await.expect("it starts");
    let request = LogRequest {
        pod_uid: "pod".to_owned(),
        name: "main".to_owned(),
        follow: true,
        ..LogRequest::default()
    };
    let mut log = world.runtime.log(request).await.expect("there is a log");
    assert_eq!(soon(log.recv()).await.as_deref(), Some(&b"one\n"[..]));
    let attach = AttachSpec { stdin: true, tty: false };
    let streams = world.runtime.attach(&status.container, attach).await.expect("it runs");
    streams.stdin.expect("it is open").send(Bytes::from_static(b"go\n")).await.expect("it listens");
    assert_eq!(collect(log).await, "got go\ntwo");
    world.runtime.remove(&status.container).await.expect("it can be removed");
    assert_eq!(world.log("pod", "main", None).await, "one\ngot go\ntwo");
    let mut again = world.spec("pod", "main", &["print", "second"]);
    again.attempt = 1;
    world.run(again).await;
    assert_eq!(world.log("pod", "main", None).await, "second\n");
    assert_eq!(world.log("pod", "main", Some(0)).await, "one\ngot go\ntwo");
    let request = LogRequest { pod_uid: "pod".to_owned(), name: "other".to_owned(), ..LogRequest::default() };
    assert!(matches!(world.runtime.log(request).await, Err(RuntimeError::NotFound(_))));
}

async fn logs_rotate_and_are_read_through(world: World) {
    world.sandbox("pod").await;
    let mut spec = world.spec("pod", "main", &["flood", "2000"]);
    (spec.log_len_max, spec.log_files_max) = (64 << 10, 3);
    let (_, log) = world.run(spec).await;
    let files = std::fs::read_dir(world.dir.join("run/pods/pod/logs/main")).expect("it is there").count();
    assert_eq!(files, 3);
    let numbers: Vec<u32> = log.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    assert!(numbers.len() < 2000 && numbers.last() == Some(&1999), "{numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

async fn a_new_agent_adopts_what_runs(world: World) {
    let mut spec = world.pod("pod");
    spec.annotations.insert("colour".to_owned(), "blue".to_owned());
    world.runtime.create_sandbox(spec).await.expect("it can be made");
    let running = world.runtime.start(world.spec("pod", "main", &["wait"])).await.expect("it starts");
    let ended =
        world.runtime.start(world.spec("pod", "short", &["line", "exit", "3"])).await.expect("it starts");
    let second = open(&world.dir);
    let mut events = second.events();
    let found = second.sandboxes().await.expect("they can be listed");
    assert!(found[0].alive && found[0].spec.annotations["colour"] == "blue");
    let states: Vec<_> =
        found[0].containers.iter().map(|container| (&container.container.id, &container.state)).collect();
    assert!(states.contains(&(&running.container.id, &running.state)), "{states:?}");
    let short = found[0]
        .containers
        .iter()
        .find(|container| container.container == ended.container)
        .expect("it is there");
    assert!(
        matches!(&short.state, ContainerState::Exited(exit) if exit.code == 3)
            || exit_of(&mut events, &ended.container).await.code == 3
    );
    second.signal(&running.container, libc::SIGKILL).await.expect("it can be killed");
    assert_eq!(exit_of(&mut events, &running.container).await.code, 137);
    let again = second.create_sandbox(world.pod("pod")).await.expect("it is there");
    assert_eq!(again.containers.len(), 2);
}

async fn a_killed_monitor_takes_its_containers_along(world: World) {
    world.sandbox("pod").await;
    let status = world.runtime.start(world.spec("pod", "main", &["wait"])).await.expect("it starts");
    let ContainerState::Running { pid, .. } = status.state else { panic!("it runs") };
    let mut events = world.runtime.events();
    let text = std::fs::read_to_string(world.dir.join("run/pods/pod/monitor.json")).expect("it is there");
    let record: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    unsafe { libc::kill(record["pid"].as_i64().expect("a number") as i32, libc::SIGKILL) };
    let lost = soon(events.recv()).await;
    assert!(matches!(lost, Some(RuntimeEvent::MonitorLost { pod_uid }) if pod_uid == "pod"));
    let found = world.runtime.sandboxes().await.expect("they can be listed");
    assert!(!found[0].alive);
    assert!(matches!(&found[0].containers[0].state, ContainerState::Exited(exit) if exit.code == 137));
    soon(async {
        while std::path::Path::new(&format!("/proc/{pid}/root/app")).exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let fresh = world.sandbox("pod").await;
    assert!(fresh.alive && fresh.containers.is_empty());
    world.run(world.spec("pod", "main", &["exit", "0"])).await;
}

async fn containers_of_a_pod_share_what_they_should(world: World) {
    let mut pod = world.pod("pod");
    pod.share_pids = true;
    world.runtime.create_sandbox(pod).await.expect("it can be made");
    let first = world.spec("pod", "first", &["write", "/dev/shm/note", "shared", "serve", "80"]);
    let first = world.runtime.start(first).await.expect("it starts");
    let text = || async {
        let command: Vec<String> = ["/app", "app", "show", "/dev/shm/note"].map(String::from).to_vec();
        soon(world.runtime.exec(&first.container, command, 100)).await.expect("it runs").output
    };
    soon(async { while text().await != b"shared" {} }).await;
    let words = ["show", "/dev/shm/note", "print", "", "list", "/proc"];
    let (_, log) = world.run(world.spec("pod", "second", &words)).await;
    let pids =
        log.lines().nth(1).unwrap_or_default().split(' ').filter(|name| name.parse::<u32>().is_ok()).count();
    assert!(log.starts_with("shared\n") && pids >= 3, "{log}");
    // The first process is the pod's, so ending one container ends nothing else, though it left a child behind.
    let (exit, _) = world.run(world.spec("pod", "third", &["zombie", "exit", "1"])).await;
    assert_eq!(exit.code, 1);
    let found = world.runtime.sandboxes().await.expect("they can be listed");
    assert!(matches!(found[0].containers[0].state, ContainerState::Running { .. }));
    let mut pod = world.pod("host");
    (pod.host_network, pod.host_pid, pod.host_ipc) = (true, true, true);
    let sandbox = world.runtime.create_sandbox(pod).await.expect("it can be made");
    assert!(sandbox.netns.is_none());
    let (_, log) = world.run(world.spec("host", "main", &["zombie", "show", "/proc/1/comm"])).await;
    assert_eq!(log, std::fs::read_to_string("/proc/1/comm").expect("it is there"));
}

async fn sysctls_of_the_machine_are_refused(world: World) {
    let mut pod = world.pod("pod");
    pod.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned());
    pod.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    world.runtime.create_sandbox(pod).await.expect("they are the pod's own");
    let words =
        ["show", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "show", "/proc/sys/kernel/shm_rmid_forced"];
    assert_eq!(world.run(world.spec("pod", "main", &words)).await.1, "80\n1\n");
    for name in ["kernel.panic", "vm.swappiness", "net/../kernel/panic"] {
        let mut pod = world.pod("bad");
        pod.sysctls.insert(name.to_owned(), "1".to_owned());
        let error = world.runtime.create_sandbox(pod).await.expect_err("it is the machine's");
        assert!(format!("{error:?}").contains("does not belong"), "{error:?}");
    }
}

async fn a_termination_message_is_read(world: World) {
    world.sandbox("pod").await;
    let file = world.dir.join("message");
    std::fs::write(&file, "").expect("it can be written");
    let mut spec =
        world.spec("pod", "main", &["write", "/dev/termination-log", "it was the disk", "exit", "1"]);
    spec.mounts = vec![Mount {
        source: file.clone(),
        target: "/dev/termination-log".into(),
        readonly: false,
        recursive: false,
        propagation: String::new(),
    }];
    spec.termination_log = Some(file);
    assert_eq!(world.run(spec).await.0.message, "it was the disk");
}

async fn an_image_in_use_is_not_removed(world: World) {
    world.sandbox("pod").await;
    let status = world.runtime.start(world.spec("pod", "main", &["wait"])).await.expect("it starts");
    assert!(world.runtime.remove_image(IMAGE).await.is_err());
    world.runtime.remove_sandbox("pod").await.expect("it can be removed");
    drop(status);
    world.runtime.remove_image(IMAGE).await.expect("nothing uses it");
    assert!(world.runtime.image(IMAGE).await.expect("it can be asked").is_none());
    assert!(matches!(world.runtime.remove_image(IMAGE).await, Err(RuntimeError::NotFound(_))));
    let layers = std::fs::read_dir(world.dir.join("images/layers")).expect("it is there").flatten();
    assert_eq!(layers.filter(|entry| entry.file_name() != "empty").count(), 0);
}

async fn an_image_is_shown_as_a_folder_that_nobody_changes(world: World) {
    let layout =
        crate::registry::layout(&world.dir.join("layout"), &std::env::current_exe().expect("we are a file"));
    let image = world.runtime.store().import(&layout).await.expect("it is sound").remove(0);
    let folder = world.dir.join("pods/pod/volumes/data");
    for _ in 0..2 {
        world.runtime.show_image(&image.id, &folder).await.expect("it is here");
    }
    assert_eq!(std::fs::read_to_string(folder.join("etc/note")).expect("an upper layer has it"), "upper\n");
    assert!(!folder.join("gone/away").exists(), "an upper layer takes it away");
    let denied = std::fs::write(folder.join("etc/note"), "x").expect_err("it is read-only");
    assert_eq!(denied.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let denied =
        std::process::Command::new(folder.join("app")).spawn().expect_err("nothing is started there");
    assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied);
    assert!(world.runtime.remove_image(&image.id).await.is_err(), "it is in use");
    rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::empty()).expect("it was mounted once");
    world.runtime.remove_image(&image.id).await.expect("nothing uses it");
    let missing = world.runtime.show_image(&image.id, &folder).await;
    assert!(matches!(missing, Err(RuntimeError::NotFound(_))), "{missing:?}");
}

async fn images_are_imported_from_layouts_and_archives(world: World) {
    let layout =
        crate::registry::layout(&world.dir.join("layout"), &std::env::current_exe().expect("we are a file"));
    let images = world.runtime.store().import(&layout).await.expect("it is sound");
    assert_eq!(images[0].tags, ["docker.io/test/layout:2"]);
    let mut spec = world.spec("pod", "main", &["show", "/etc/note", "list", "/gone"]);
    (spec.image, spec.image_id) = ("test/layout:2".to_owned(), String::new());
    world.sandbox("pod").await;
    assert_eq!(world.run(spec).await.1, "upper\nkept\n");
    for compressed in [false, true] {
        let archive = crate::registry::docker_archive(&world.dir, &layout, compressed);
        let images = world.runtime.store().import(&archive).await.expect("it is sound");
        assert_eq!(
            images[0].id,
            world.runtime.image("test/layout:2").await.expect("it can be asked").expect("it is here").id
        );
        assert!(images[0].tags.contains(&"docker.io/test/saved:3".to_owned()));
    }
    crate::registry::damage(&layout);
    std::fs::remove_dir_all(world.dir.join("images/layers")).expect("it is there");
    std::fs::create_dir_all(world.dir.join("images/layers/empty")).expect("a folder");
    let error = world.runtime.store().import(&layout).await.expect_err("it is damaged");
    assert!(format!("{error:?}").contains("digest mismatch"), "{error:?}");
}

async fn images_are_pulled_once_and_checked(world: World) {
    let layout =
        crate::registry::layout(&world.dir.join("layout"), &std::env::current_exe().expect("we are a file"));
    let registry = crate::registry::Registry::start(layout.clone()).await;
    let name = format!("127.0.0.1:{}/test/layout:2", registry.port);
    let both = tokio::join!(world.runtime.pull(&name, &[]), world.runtime.pull(&name, &[]));
    let (one, two) = (both.0.expect("it can be pulled"), both.1.expect("it can be pulled"));
    assert_eq!(one.id, two.id);
    assert_eq!((&one.tags[..], one.digests.len()), (&[name.clone()][..], 1));
    assert_eq!(registry.blob_requests(), 3, "a configuration and two layers, once each");
    let by_digest = world.runtime.image(&one.digests[0]).await.expect("it can be asked");
    assert_eq!(by_digest.map(|image| image.id), Some(one.id));
    let error =
        world.runtime.pull(&name.replace("layout:2", "missing:1"), &[]).await.expect_err("there is none");
    assert!(matches!(error, RuntimeError::Pull { .. }), "{error:?}");
    let error = world.runtime.pull("Not/A:Name", &[]).await.expect_err("it is no name");
    assert!(matches!(error, RuntimeError::ImageName { .. }), "{error:?}");
    world.runtime.remove_image(&name).await.expect("nothing uses it");
    crate::registry::damage(&layout);
    let error = world.runtime.pull(&name, &[]).await.expect_err("it is damaged");
    assert!(error.to_string().contains("digest"), "{error}");
}

async fn removing_twice_and_the_unknown_is_no_harm(world: World) {
    world.runtime.remove_sandbox("unknown").await.expect("gone counts as done");
    world.sandbox("pod").await;
    let status = world.runtime.start(world.spec("pod", "main", &["wait"])).await.expect("it starts");
    assert!(world.runtime.remove(&status.container).await.is_err(), "it runs");
    let gone = world.sandbox("pod").await;
    assert_eq!(gone.containers.len(), 1);
    for _ in 0..2 {
        world.runtime.remove_sandbox("pod").await.expect("it can be removed");
    }
    for bad in ["../x", "", "a/b"] {
        assert!(world.runtime.create_sandbox(world.pod(bad)).await.is_err(), "{bad:?}");
    }
    let missing = world.runtime.start(world.spec("pod", "main", &["wait"])).await;
    assert!(matches!(missing, Err(RuntimeError::NotFound(_))), "{missing:?}");
}

async fn a_privileged_container_sees_the_devices(world: World) {
    let words = ["mount", "ids", "list", "/dev"];
    let log = world.output("pod", |spec| spec.security.privileged = true, &words).await;
    assert!(
        log.starts_with("done\n") && log.contains("Seccomp: 0") && log.contains("vda") | log.contains("loop"),
        "{log}"
    );
}

async fn no_container_gets_hold_of_the_machine_by_its_monitor(world: World) {
    let own_binary = |spec: &mut ContainerSpec| spec.args[0] = "/proc/self/exe".to_owned();
    assert_eq!(
        world.output("pod-1", own_binary, &["sealed", "list", "/proc/self/fd"]).await,
        "true\n0 1 2 3\n"
    );
    for fd in 3..20 {
        let mut spec = world.spec("pod-1", &format!("fd-{fd}"), &["cwd"]);
        spec.working_dir = format!("/proc/self/fd/{fd}");
        assert!(world.runtime.start(spec).await.is_err(), "descriptor {fd} leads somewhere");
    }
    let mut spec = world.spec("pod-1", "proc", &["wait"]);
    spec.mounts = vec![Mount {
        source: world.dir.clone(),
        target: "/proc/1".into(),
        readonly: false,
        recursive: true,
        propagation: String::new(),
    }];
    assert!(world.runtime.start(spec).await.is_err());
}
