//! Volumes whose file systems were shut down: when a fenced pod's deadline passed, its monitor saw to it that nothing
//! more is written to them. Where the pod goes on here, they are unpublished, unstaged and made anew.
//!
//! Promises: no pod is given what is left of such a file system, also not after an agent's end between two steps; what
//! another pod of the node has not let go of is waited for.

use std::collections::BTreeMap;
use std::path::Path;

use super::VolumeId;
use super::mount::{root, unpublish_in_turn, unstage_in_turn};
use super::records::{self, Record};
use super::wish::Wish;
use crate::agent::Agent;
use crate::fence;
use crate::pod::PodView;
use crate::volumes::{Claimed, Paths, WAITS};

/// Whether a pod may run only while the node holds its lease.
pub(super) fn is_fenced(pod: &PodView) -> bool {
    fence::epoch_of(pod).is_some()
}

/// The volumes of a fenced pod whose file systems are shut down when its deadline passes, and where each is.
pub fn exclusive<'a>(pod: &PodView, claims: &'a BTreeMap<String, Claimed>) -> Vec<(&'a Path, &'a Wish)> {
    if !is_fenced(pod) {
        return Vec::new();
    }
    let all = claims.values().filter_map(|claimed| Some((claimed.path.as_path(), claimed.driver.as_ref()?)));
    all.filter(|(_, wish)| wish.is_exclusive()).collect()
}

/// Whether it is noted of a pod's volumes that one of them was shut down: another pod of the node has it, too.
pub async fn is_shut(agent: &Agent, pod: &PodView, claims: &BTreeMap<String, Claimed>) -> bool {
    let all: Vec<VolumeId> = exclusive(pod, claims).iter().map(|(_, wish)| wish.id()).collect();
    if all.is_empty() {
        return false;
    }
    let (files, root, uid) = (agent.means.files.clone(), root(agent), pod.uid.clone());
    let look = move || records::used_by(&*files, &root, &uid);
    // What cannot be read now is read when the volumes are made.
    let known = agent.means.host.blocking(look).await.unwrap_or_default();
    known.iter().any(|record| record.is_shut && all.contains(&record.id()))
}

/// Takes those volumes of a pod that were shut down away from it; whoever is given them next gets them anew.
pub async fn take_down(
    agent: &Agent,
    pod: &PodView,
    claims: &BTreeMap<String, Claimed>,
) -> Result<(), String> {
    for (_, wish) in exclusive(pod, claims) {
        let id = wish.id();
        let _turn = agent.csi.turn(&id).await;
        let (files, root, volume) = (agent.means.files.clone(), root(agent), id.clone());
        let paths = Paths::new(&agent.settings.data_dir, &pod.uid);
        let work = move || {
            // First of all: after this the volume is not taken for whole, whatever becomes of the agent.
            records::mark_shut(&*files, &root, &volume)?;
            // A part that is mounted holds the whole.
            files.unmount_below(&paths.sub_paths())?;
            records::users(&*files, &root, &volume)
        };
        let users = agent.means.host.blocking(work).await.map_err(|error| error.to_string())?;
        for (_, record) in users.iter().filter(|(uid, _)| *uid == pod.uid) {
            unpublish_in_turn(agent, &pod.uid, record).await?;
        }
    }
    Ok(())
}

/// What is to be done with a volume before it is given to a pod.
#[derive(Debug, PartialEq, Eq)]
struct Steps {
    /// Whether the pod has to let go of it first.
    is_unpublished: bool,
    /// Whether what is staged has to go: it may have been shut down, or it is nobody's.
    is_unstaged: bool,
}

/// Decides that, from what is known of the pods that use the volume; `None`: another one has to let go of it first.
fn steps(mine: &str, users: &[(String, Record)]) -> Option<Steps> {
    let is_shut = |is_mine: bool| users.iter().any(|(uid, user)| (uid == mine) == is_mine && user.is_shut);
    let is_unpublished = is_shut(true);
    let others = users.iter().filter(|(uid, _)| uid != mine).count();
    match is_shut(false) || (is_unpublished && others > 0) {
        true => None,
        false => Some(Steps { is_unpublished, is_unstaged: is_unpublished || users.is_empty() }),
    }
}

/// Takes down what was shut down of a volume before it is given to a pod. What is staged for nobody is made anew as well:
/// who had it may have been fenced, and gone before anybody could note that.
pub(super) async fn renew(agent: &Agent, pod: &PodView, wish: &Wish) -> Result<(), String> {
    let (files, root, id, staged) = (agent.means.files.clone(), root(agent), wish.id(), wish.clone());
    let look = move || {
        let users = records::users(&*files, &root, &id)?;
        Ok::<_, std::io::Error>((users, records::read(&*files, &records::of_stage(&root, &staged))?))
    };
    let (users, staged) = agent.means.host.blocking(look).await.map_err(|error| error.to_string())?;
    let steps = steps(&pod.uid, &users);
    let mine = users.iter().find(|(uid, record)| *uid == pod.uid && record.is_shut);
    if let Some((_, record)) = mine {
        unpublish_in_turn(agent, &pod.uid, record).await?;
    }
    let Some(steps) = steps else {
        return Err(format!(
            "the file system of volume {:?} was shut down, and another pod has not let go of it{WAITS}",
            wish.name
        ));
    };
    match staged.filter(|_| steps.is_unstaged) {
        Some(record) => unstage_in_turn(agent, &record).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users are pods by uid; one with an exclamation mark is known to have had it when it was shut down.
    fn check(users: &str, expected: &str) {
        let user = |text: &str| {
            let (uid, is_shut) = text.strip_suffix('!').map_or((text, false), |uid| (uid, true));
            (uid.to_owned(), Record { is_shut, ..Record::default() })
        };
        let users: Vec<_> = users.split_whitespace().map(user).collect();
        let told = match steps("me", &users) {
            None => "wait",
            Some(Steps { is_unpublished: true, is_unstaged: true }) => "unpublish, unstage",
            Some(Steps { is_unpublished: false, is_unstaged: true }) => "unstage",
            Some(Steps { is_unpublished: false, is_unstaged: false }) => "",
            Some(Steps { is_unpublished: true, is_unstaged: false }) => "unpublish",
        };
        assert_eq!(told, expected, "{users:?}");
    }

    #[test]
    fn what_was_shut_down_is_made_anew_when_all_have_let_go_of_it() {
        check("", "unstage");
        check("me", "");
        check("you", "");
        check("me you", "");
        check("me!", "unpublish, unstage");
        check("me! you!", "wait");
        check("me! you", "wait");
        check("you!", "wait");
        check("me you!", "wait");
    }

    #[test]
    fn only_file_systems_of_drivers_that_one_node_writes_to_are_exclusive() {
        let check = |modes: &[&str], change: fn(&mut Wish), expected: bool| {
            let modes: Vec<String> = modes.iter().map(|mode| (*mode).to_owned()).collect();
            let mut wish = Wish { modes, ..Wish::default() };
            change(&mut wish);
            assert_eq!(wish.is_exclusive(), expected, "{wish:?}");
        };
        check(&["ReadWriteOnce"], |_| {}, true);
        check(&["ReadWriteOncePod"], |_| {}, true);
        check(&["ReadWriteOnce"], |wish| wish.is_readonly = true, true);
        check(&["ReadWriteMany"], |_| {}, false);
        check(&["ReadWriteOnce", "ReadWriteMany"], |_| {}, false);
        check(&["ReadWriteOnce"], |wish| wish.is_block = true, false);
        check(&[], |wish| wish.is_inline = true, false);
    }
}
