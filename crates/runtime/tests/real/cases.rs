//! What the runtime promises, with real containers.

use runtime::*;

use crate::world::*;

macro_rules! cases {
    ($($name:ident)*) => {
        /// All tests by name.
        pub const ALL: &[(&str, Case)] = &[$((stringify!($name), |world| Box::pin($name(world)))),*];
    };
}

cases! {
    a_container_runs_prints_and_ends
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
