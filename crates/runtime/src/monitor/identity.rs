//! Who a process runs as: user, groups and capabilities.
//!
//! Names are looked up in the container's own files, so this is for after the change of root.

use crate::Security;
use crate::monitor::capabilities;
use crate::monitor::init::{Fault, failed};
use crate::sys;

/// Bytes of `/etc/passwd` and `/etc/group` read at most: an image must not exhaust the machine's memory.
const FILE_LEN_MAX: u64 = 4 << 20;

/// A resolved user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: String,
}

/// Finds out who a container runs as, from its pod's wishes and its image's.
pub(crate) fn resolve(security: &Security, image_user: &str) -> Result<Identity, Fault> {
    let files = Files { passwd: read("/etc/passwd"), group: read("/etc/group") };
    files.resolve(security, image_user)
}

fn read(path: &str) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    let done = std::fs::File::open(path).and_then(|file| file.take(FILE_LEN_MAX).read_to_end(&mut text));
    if done.is_ok() { String::from_utf8_lossy(&text).into_owned() } else { String::new() }
}

struct Files {
    passwd: String,
    group: String,
}

/// A line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Files {
    fn resolve(&self, security: &Security, image_user: &str) -> Result<Identity, Fault> {
        let (image_user, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
        let (uid, user) = match security.user {
            Some(uid) => (number(uid)?, self.user_of(|user| i64::from(user.uid) == uid)),
            None => self.user_named(image_user)?,
        };
        if security.must_not_be_root && uid == 0 {
            let why = "container has runAsNonRoot and image will run as root";
            return Err(Fault::Config(why.to_owned()));
        }
        let gid = match security.group {
            Some(gid) => number(gid)?,
            None if security.user.is_none() && !image_group.is_empty() => self.group_named(image_group)?,
            None => user.as_ref().map_or(0, |user| user.gid),
        };
        let mut groups = user.as_ref().map(|user| self.groups_of(user.name)).unwrap_or_default();
        for group in &security.groups {
            groups.push(number(*group)?);
        }
        groups.sort_unstable();
        groups.dedup();
        let home = user.map_or("/", |user| user.home);
        Ok(Identity { uid, gid, groups, home: home.to_owned() })
    }

    fn user_named(&self, name: &str) -> Result<(u32, Option<User<'_>>), Fault> {
        if name.is_empty() {
            return Ok((0, self.user_of(|user| user.uid == 0)));
        }
        if let Some(user) = self.user_of(|user| user.name == name) {
            return Ok((user.uid, Some(user)));
        }
        let unknown =
            || Fault::Config(format!("unable to find user {name}: no matching entries in passwd file"));
        let uid = name.parse().map_err(|_| unknown())?;
        Ok((uid, self.user_of(|user| user.uid == uid)))
    }

    fn user_of(&self, matches: impl Fn(&User<'_>) -> bool) -> Option<User<'_>> {
        let parse = |line| {
            let parts: Vec<&str> = str::split(line, ':').collect();
            let [name, _, uid, gid, _, home, ..] = parts.as_slice() else { return None };
            Some(User { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
        };
        self.passwd.lines().filter_map(parse).find(matches)
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut parts = line.split(':');
            let (name, _, gid) = (parts.next()?, parts.next()?, parts.next()?);
            Some((name, gid.parse().ok()?, parts.next().unwrap_or("")))
        })
    }

    fn group_named(&self, name: &str) -> Result<u32, Fault> {
        let found = self.groups().find(|group| group.0 == name).map(|group| group.1);
        let unknown =
            || Fault::Config(format!("unable to find group {name}: no matching entries in group file"));
        found.or_else(|| name.parse().ok()).ok_or_else(unknown)
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let member = |group: &(&str, u32, &str)| group.2.split(',').any(|name| name == user);
        self.groups().filter(member).map(|group| group.1).collect()
    }
}

fn number(id: i64) -> Result<u32, Fault> {
    u32::try_from(id).map_err(|_| Fault::Config(format!("{id} is no user or group id")))
}

impl Identity {
    /// Takes on this user, and the capabilities that `security` leaves.
    pub(crate) fn take_on(&self, security: &Security) -> Result<(), Fault> {
        let wanted = capabilities::wanted(security).map_err(Fault::Config)?;
        let wanted = capabilities::bound(wanted).map_err(failed("limit capabilities"))?;
        // SAFETY: the list lives through the call; the others take plain numbers.
        unsafe {
            sys::check(libc::setgroups(self.groups.len(), self.groups.as_ptr()))
                .map_err(failed("set groups"))?;
            sys::check(libc::setresgid(self.gid, self.gid, self.gid)).map_err(failed("set the group"))?;
            sys::check(libc::setresuid(self.uid, self.uid, self.uid)).map_err(failed("set the user"))?;
        }
        if self.uid == 0 {
            capabilities::set(wanted).map_err(failed("set capabilities"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: Option<i64>, image: &str, want: Result<(u32, u32, &[u32], &str), &str>) {
        let files = Files {
            passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/false\n".to_owned(),
            group: "root:x:0:\nlogs:x:90:web,other\nops:x:91:\n".to_owned(),
        };
        let security = Security { user, ..Security::default() };
        let got = files.resolve(&security, image);
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!((got.uid, got.gid, &got.groups[..], &got.home[..]), want),
            (Err(Fault::Config(got)), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn the_pod_decides_before_the_image_and_files_fill_in() {
        check(None, "", Ok((0, 0, &[], "/root")));
        check(None, "web", Ok((33, 34, &[90], "/srv")));
        check(None, "web:ops", Ok((33, 91, &[90], "/srv")));
        check(None, "1000", Ok((1000, 0, &[], "/")));
        check(Some(33), "root:ops", Ok((33, 34, &[90], "/srv")));
        check(Some(7), "web", Ok((7, 0, &[], "/")));
        check(None, "nobody", Err("unable to find user nobody"));
        check(None, "web:nogroup", Err("unable to find group nogroup"));
        check(Some(-1), "", Err("-1 is no user"));
    }
}
