//! What monitors write down, as the face has it.

use crate::wire::{ContainerRecord, ExitRecord, SandboxFile};
use crate::{ContainerRef, ContainerState, ContainerStatus, Exit, Sandbox, Time};

/// The exit code of a container whose end nobody saw: as if killed.
const UNSEEN_EXIT_CODE: i32 = 137;

/// How a container ended; `None` while it runs.
pub(crate) fn exit(record: &ContainerRecord) -> Option<Exit> {
    record.exit.as_ref().map(|exit| Exit {
        code: exit.code,
        signal: exit.signal,
        oom_killed: exit.oom_killed,
        started_at: record.started_at.unwrap_or(record.created_at),
        finished_at: exit.finished_at,
        message: exit.message.clone(),
    })
}

/// A container as it is.
pub(crate) fn container(record: &ContainerRecord) -> ContainerStatus {
    let started_at = record.started_at.unwrap_or(record.created_at);
    let running = ContainerState::Running { started_at, pid: record.pid };
    ContainerStatus {
        container: ContainerRef { pod_uid: record.spec.pod_uid.clone(), id: record.id.clone() },
        name: record.spec.name.clone(),
        attempt: record.spec.attempt,
        image: record.spec.image.clone(),
        image_id: record.spec.image_id.clone(),
        created_at: record.created_at,
        state: exit(record).map_or(running, ContainerState::Exited),
        resources: record.spec.resources.clone(),
        annotations: record.spec.annotations.clone(),
    }
}

/// A sandbox as it is.
pub(crate) fn sandbox(file: &SandboxFile, alive: bool, records: &[ContainerRecord]) -> Sandbox {
    Sandbox {
        spec: file.spec.clone(),
        created_at: file.created_at,
        netns: file.netns.clone(),
        alive,
        containers: records.iter().map(container).collect(),
    }
}

/// The end of a container that died with its monitor.
pub(crate) fn unseen_exit(now: Time) -> ExitRecord {
    ExitRecord {
        code: UNSEEN_EXIT_CODE,
        signal: Some(libc::SIGKILL),
        oom_killed: false,
        finished_at: now,
        message: String::new(),
    }
}
