//! Figures: `cargo test -p runtime --test real --release -- bench`.

use std::time::Instant;

use runtime::*;

use crate::world::*;

const ROUNDS: usize = 30;

/// Prints how long starts and news of exits take, and what a monitor weighs.
pub fn run(template: &std::path::Path) {
    crate::world::run(|world| Box::pin(measure(world)), template);
}

async fn measure(world: World) {
    let mut events = world.runtime.events();
    let mut figures = [const { Vec::new() }; 6];
    for round in 0..ROUNDS {
        let uid = format!("bench-{round}");
        let begin = Instant::now();
        world.sandbox(&uid).await;
        figures[0].push(begin.elapsed());
        let begin = Instant::now();
        let status = world.runtime.start(world.spec(&uid, "main", &["wait"])).await.expect("it starts");
        figures[1].push(begin.elapsed());
        let ContainerState::Running { pid, .. } = status.state else { panic!("it runs") };
        // As on a quiet machine: what the kernel keeps warm after a start is cold again.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let begin = Instant::now();
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        exit_of(&mut events, &status.container).await;
        figures[2].push(begin.elapsed());
        let mut spec = world.spec(&uid, "main", &["wait"]);
        spec.attempt = 1;
        let status = world.runtime.start(spec).await.expect("it starts");
        figures[3].push(begin.elapsed());
        let begin = Instant::now();
        world.runtime.exec(&status.container, vec!["/app".into(), "app".into()], 10).await.expect("it runs");
        figures[5].push(begin.elapsed());
        if round == ROUNDS - 1 {
            weigh(&world.dir, &uid);
        }
        let begin = Instant::now();
        world.runtime.remove_sandbox(&uid).await.expect("it can be removed");
        figures[4].push(begin.elapsed());
    }
    let names = ["sandbox", "start", "kill to event", "kill to running again", "remove", "exec"];
    for (name, mut times) in names.iter().zip(figures) {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        println!("{name}: median {:?}, p90 {:?}, max {:?}", at(50), at(90), at(100));
    }
}

fn weigh(dir: &std::path::Path, uid: &str) {
    let record =
        std::fs::read_to_string(dir.join("run/pods").join(uid).join("monitor.json")).expect("it is there");
    let record: serde_json::Value = serde_json::from_str(&record).expect("it is JSON");
    if std::env::var_os("KINTSUGI_BENCH_MAPS").is_some() {
        let maps = std::fs::read_to_string(format!("/proc/{}/smaps", record["pid"])).expect("it lives");
        let mut name = String::new();
        for line in maps.lines() {
            if line.split(' ').next().is_some_and(|word| word.contains('-')) {
                name = line.to_owned();
            } else if line.starts_with("Private") && !line.contains(" 0 kB") {
                println!("{line} {name}");
            }
        }
    }
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", record["pid"])).expect("it lives");
    rollup
        .lines()
        .filter(|line| line.starts_with("Private") || line.starts_with("Rss"))
        .for_each(|line| println!("{line}"));
}
