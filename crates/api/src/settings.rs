//! What whoever wires the house tells the API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::admit::PodSecurity;
use crate::audit::Trail;
use crate::dial::{Dial, NoDial};
use crate::guard::{AllowAll, Guard};
use crate::hooks::Introduced;
use crate::upkeep::{NoKeys, Upkeep};

/// The version of Kubernetes that is spoken: major, minor.
pub const KUBERNETES_VERSION: (&str, &str) = ("1", "36");
/// The version as `/version` tells it.
pub const GIT_VERSION: &str = "v1.36.2+kintsugi";

/// What whoever wires the house tells the API.
#[derive(Clone)]
pub struct Settings {
    /// The range of the addresses of Services.
    pub service_cidr: Cidr,
    /// Where the pods find the API: the address behind the Service `default/kubernetes`.
    pub advertise: SocketAddr,
    /// The certificate of the authority that signs clients, as PEM; empty for none.
    pub client_ca: String,
    /// The certificate of the authority that signs the front proxy, as PEM; empty for none.
    pub front_proxy_ca: String,
    /// Whether the nodes share storage: then there is a class for it.
    pub has_shared_storage: bool,
    /// Who may do what.
    pub guard: Arc<dyn Guard>,
    /// How kubelets and proxied pods are reached.
    pub dial: Arc<dyn Dial>,
    /// What is shown to webhooks of admission.
    pub introduced: Introduced,
    /// What is said of pods beside the labels of their namespaces.
    pub security: PodSecurity,
    /// The audit log, where there is one.
    pub audit: Option<Arc<Trail>>,
    /// Keeps the keys by which the store is sealed.
    pub upkeep: Arc<dyn Upkeep>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            service_cidr: Cidr { base: Ipv4Addr::new(10, 96, 0, 0), bits: 16 },
            advertise: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6443),
            client_ca: String::new(),
            front_proxy_ca: String::new(),
            has_shared_storage: false,
            guard: Arc::new(AllowAll),
            dial: Arc::new(NoDial),
            introduced: Introduced::default(),
            security: PodSecurity::default(),
            audit: None,
            upkeep: Arc::new(NoKeys),
        }
    }
}

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub base: Ipv4Addr,
    /// How many leading bits are fixed.
    pub bits: u8,
}

/// A text that is no range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of IPv4 addresses such as 10.96.0.0/16")]
pub struct NotACidr(pub String);

impl std::str::FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let bad = || NotACidr(text.to_owned());
        let (base, bits) = text.split_once('/').ok_or_else(bad)?;
        let base: Ipv4Addr = base.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let range = Self { base, bits };
        // Fewer than 8 addresses hold no Services, more than 2^24 are no private range.
        if !(8..=29).contains(&bits) || u32::from(base) & (range.len() - 1) != 0 {
            return Err(bad());
        }
        Ok(range)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl Cidr {
    /// How many addresses there are.
    pub fn len(&self) -> u32 {
        1u32.checked_shl(32 - u32::from(self.bits.clamp(1, 32))).unwrap_or(1)
    }

    /// Never: a range has at least one address.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The address at a place, counted from the first.
    pub fn at(&self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base).wrapping_add(place))
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address).wrapping_sub(u32::from(self.base)) < self.len()
    }

    /// The first address that is given away: that of the Service `kubernetes`.
    pub fn first(&self) -> Ipv4Addr {
        self.at(1)
    }
}
