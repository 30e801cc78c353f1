//! The sandbox: namespaces, shared memory and group of a pod, made by its monitor for itself and its children.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use host::Clock;

use crate::cgroup::{Cgroups, Group};
use crate::layout::Pod;
use crate::sys;
use crate::wire::{self, MonitorRecord, SandboxFile};

/// How large a pod's shared memory is, as other runtimes have it.
const SHM_SIZE: &str = "65536k";
/// Kernel settings that belong to a pod's own IPC namespace.
const IPC_SYSCTLS: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];

/// A made sandbox.
pub(crate) struct Sandbox {
    /// Its paths.
    pub pod: Pod,
    /// What it was made of.
    pub file: SandboxFile,
    /// Where time comes from.
    pub clock: Clock,
    /// The machine's control groups.
    pub cgroups: Cgroups,
    /// The pod's group.
    pub group: Group,
    /// Where agents connect.
    pub listener: UnixListener,
    /// The monitor's own process ids, to come back to.
    pub own_pids: OwnedFd,
    /// The first process of shared process ids.
    pub pause: Option<sys::Child>,
}

impl Sandbox {
    /// Makes everything that the pod's file asks for, and begins to listen.
    pub(crate) fn make(pod: Pod) -> io::Result<Self> {
        let file: SandboxFile = wire::read_whole(&pod.spec()).map_err(naming("read the sandbox's file"))?;
        let cgroups = Cgroups::detect()?;
        let own = cgroups.group(&format!("{}/monitors", file.cgroup));
        own.create().and_then(|()| own.join()).map_err(naming("enter the monitors' group"))?;
        let group = cgroups.group(&format!("{}/pod{}", file.cgroup, file.spec.pod_uid));
        group
            .create()
            .and_then(|()| group.limit(&file.spec.resources, true))
            .map_err(naming("make the pod's group"))?;
        // The kernel should rather take a container than what watches it; lowering needs a right we may lack.
        let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
        let own_pids = OwnedFd::from(std::fs::File::open("/proc/self/ns/pid")?);
        enter_namespaces(&file)?;
        share_memory(&pod, &file)?;
        let pause = if file.spec.share_pids && !file.spec.host_pid { Some(pause()?) } else { None };
        let listener = listen(&pod).map_err(naming("listen"))?;
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let record = MonitorRecord { pid, created_at: file.created_at, netns: file.netns.clone() };
        wire::write_whole(&pod.monitor(), &record)?;
        Ok(Self { pod, file, clock: Clock::real(), cgroups, group, listener, own_pids, pause })
    }

    /// Changes the limits of the pod as a whole; its file says them to whoever adopts it.
    pub(crate) fn resize(&mut self, resources: crate::Resources) -> io::Result<()> {
        self.group.limit(&resources, false)?;
        self.file.spec.resources = resources;
        wire::write_whole(&self.pod.spec(), &self.file)
    }

    /// Unmakes it. All its processes must be gone.
    pub(crate) fn unmake(&mut self) -> io::Result<()> {
        if let Some(pause) = self.pause.take() {
            let _ = sys::signal(pause.pidfd.as_fd(), libc::SIGKILL);
        }
        let _ = std::fs::remove_file(self.pod.socket());
        sys::unmount(&self.pod.shm())?;
        if let Some(netns) = &self.file.netns {
            sys::unmount(netns)?;
            let _ = std::fs::remove_file(netns);
        }
        self.group.remove()
    }
}

fn naming(doing: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot {doing}: {error}"))
}

fn enter_namespaces(file: &SandboxFile) -> io::Result<()> {
    let spec = &file.spec;
    let flag = |wanted: bool, flag: i32| if wanted { flag } else { 0 };
    let own_network = file.netns.is_some();
    let flags =
        flag(own_network, libc::CLONE_NEWNET | libc::CLONE_NEWUTS) | flag(!spec.host_ipc, libc::CLONE_NEWIPC);
    sys::unshare(flags).map_err(naming("make namespaces"))?;
    if let Some(netns) = &file.netns {
        loopback_up().map_err(naming("bring the loopback up"))?;
        std::fs::write(netns, "").map_err(naming("make the namespace's file"))?;
        sys::mount("/proc/self/ns/net", netns, "", libc::MS_BIND, "")
            .map_err(naming("keep the network namespace"))?;
        rustix::system::sethostname(spec.hostname.as_bytes())
            .map_err(|e| naming("set the host name")(e.into()))?;
    }
    for (name, value) in &spec.sysctls {
        set_sysctl(name, value, own_network, !spec.host_ipc)?;
    }
    Ok(())
}

/// Changes a setting of the pod's own namespaces; one that would change the machine is refused.
fn set_sysctl(name: &str, value: &str, own_network: bool, own_ipc: bool) -> io::Result<()> {
    let of_ipc = IPC_SYSCTLS.iter().any(|prefix| name.starts_with(prefix));
    let safe = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
        && !name.contains("..");
    if !(safe && (own_network && name.starts_with("net.") || own_ipc && of_ipc)) {
        let why = format!("sysctl {name:?} does not belong to the pod's own namespaces");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // As elsewhere: dots separate, unless slashes do, when dots are part of a name (of an interface).
    let swap = |c| {
        if c == '.' {
            '/'
        } else if c == '/' {
            '.'
        } else {
            c
        }
    };
    let path = Path::new("/proc/sys").join(name.chars().map(swap).collect::<String>());
    std::fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("sysctl {name}={value}: {error}")))
}

fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request lives through the call.
    sys::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }).map(drop)
}

fn share_memory(pod: &Pod, file: &SandboxFile) -> io::Result<()> {
    if file.spec.host_ipc {
        return Ok(());
    }
    let make = || {
        std::fs::create_dir_all(pod.shm())?;
        let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        let tree = sys::new_mount("tmpfs", &[("mode", "1777"), ("size", SHM_SIZE)], attributes)?;
        sys::move_mount(&tree, &pod.shm())
    };
    make().map_err(naming("make shared memory"))
}

/// Starts the first process of the containers' common process ids: it collects orphans, and ends with the monitor.
fn pause() -> io::Result<sys::Child> {
    let work = || -> std::convert::Infallible {
        sys::reset_signals();
        let _ = sys::close_others();
        let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        // SAFETY: plain calls; an ignored SIGCHLD lets the kernel collect children at once.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
    };
    // SAFETY: the monitor has one thread.
    unsafe { sys::clone_process(libc::CLONE_NEWPID, None, work) }
}

/// Listens at the sandbox's socket, named from within its folder because such names have 107 bytes at most.
fn listen(pod: &Pod) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(pod.socket());
    std::env::set_current_dir(&pod.dir)?;
    let listener = UnixListener::bind("monitor.sock");
    std::env::set_current_dir("/")?;
    let listener = listener?;
    std::fs::set_permissions(pod.socket(), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
