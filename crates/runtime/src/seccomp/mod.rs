//! Which system calls a container may make: the default, none refused, or an OCI profile; as BPF programs.
//!
//! Promises: a profile is applied whole or refused; nothing in it is skipped silently. Several programs are stacked,
//! of which the kernel obeys the strictest: one that lets through, and one for each other action.

mod default;
mod profile;
mod table;

use std::collections::BTreeMap;
use std::io;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use crate::sys;
use crate::{ContainerSpec, Seccomp};

/// Programs in the order in which they are applied.
#[derive(Debug, Default)]
pub(crate) struct Filters(Vec<BpfProgram>);

/// Rules by system call; an empty list matches whatever the arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// One program: what it does with calls that its rules match, and with others.
struct Layer {
    rules: Rules,
    matched: SeccompAction,
    other: SeccompAction,
}

/// Makes the programs that a container asks for; an error says what is wrong with its profile.
pub(crate) fn compile(spec: &ContainerSpec) -> Result<Filters, String> {
    if spec.security.privileged {
        return Ok(Filters::default());
    }
    let layers = match &spec.security.seccomp {
        Seccomp::Unconfined => Vec::new(),
        Seccomp::RuntimeDefault => default::layers(&spec.security)?,
        Seccomp::Localhost(path) => profile::load(path)?,
    };
    layers.into_iter().map(Layer::compile).collect::<Result<_, _>>().map(Filters)
}

impl Layer {
    fn compile(self) -> Result<BpfProgram, String> {
        let arch: TargetArch =
            std::env::consts::ARCH.try_into().map_err(|error| format!("seccomp: {error}"))?;
        let filter = SeccompFilter::new(self.rules, self.other, self.matched, arch);
        filter.and_then(BpfProgram::try_from).map_err(|error| format!("seccomp: {error}"))
    }
}

impl Filters {
    /// Applies them to the calling process and all it starts, for ever.
    ///
    /// Needs either `no_new_privs` or CAP_SYS_ADMIN.
    pub(crate) fn apply(&self) -> io::Result<()> {
        for program in &self.0 {
            let len =
                u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
            // SAFETY: the program lives through the call, and the kernel checks and copies it.
            let done = unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
            };
            sys::check(done as i32)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_compiles_and_is_not_empty() {
        let filters = compile(&ContainerSpec::default()).expect("the default is valid");
        assert!(filters.0.iter().all(|program| program.len() > 1));
        assert!(filters.0.len() > 1);
    }

    #[test]
    fn an_absent_profile_is_refused() {
        let mut spec = ContainerSpec::default();
        spec.security.seccomp = Seccomp::Localhost("/nowhere/profile.json".into());
        assert!(compile(&spec).is_err());
    }
}
