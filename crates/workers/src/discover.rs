//! Workers of the local network, by multicast DNS (`_hypura-worker._tcp.local.`).
//!
//! An announcement is a hint where to look, and nothing else: who is there is found out by connecting.

use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};
use std::time::{Duration, Instant};

use crate::WorkerError;
use crate::identity::Identity;

const SERVICE: &str = "_hypura-worker._tcp.local.";

/// A worker that announced itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announced {
    /// HOST:PORT.
    pub address: String,
    /// Name of its machine.
    pub name: String,
    /// Its version, as it says.
    pub version: String,
}

/// An announcement that lasts as long as this.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

fn failed(error: mdns_sd::Error) -> WorkerError {
    WorkerError::Discovery(error.to_string())
}

/// Announces a worker on this port.
///
/// # Errors
/// [`WorkerError::Discovery`] where the network has no multicast.
pub fn announce(identity: &Identity, port: u16) -> Result<Announcement, WorkerError> {
    let daemon = ServiceDaemon::new().map_err(failed)?;
    let host = format!("{}.local.", identity.name.split('.').next().unwrap_or("worker"));
    let instance = format!("{} {port}", identity.name);
    let properties = [("version", identity.version.as_str()), ("name", identity.name.as_str())];
    let info = ServiceInfo::new(SERVICE, &instance, &host, "", port, &properties[..]).map_err(failed)?;
    let info = info.enable_addr_auto();
    let name = info.get_fullname().to_owned();
    daemon.register(info).map_err(failed)?;
    Ok(Announcement { daemon, name })
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Others forget it by themselves after a while.
        let _ = self.daemon.unregister(&self.name);
        let _ = self.daemon.shutdown();
    }
}

/// The workers that answer within `patience`.
///
/// # Errors
/// [`WorkerError::Discovery`] where the network has no multicast.
pub fn find(patience: Duration) -> Result<Vec<Announced>, WorkerError> {
    let daemon = ServiceDaemon::new().map_err(failed)?;
    let events = daemon.browse(SERVICE).map_err(failed)?;
    let deadline = Instant::now() + patience;
    let mut found = Vec::new();
    while let Ok(event) = events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        let ServiceEvent::ServiceResolved(info) = event else { continue };
        let property = |name| info.get_property_val_str(name).unwrap_or_default().to_owned();
        // One address is enough; those of the fourth version are the least trouble.
        let mut addresses: Vec<std::net::IpAddr> =
            info.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        if let Some(address) = addresses.first() {
            let address = std::net::SocketAddr::new(*address, info.get_port()).to_string();
            found.push(Announced { address, name: property("name"), version: property("version") });
        }
    }
    let _ = daemon.shutdown();
    found.sort();
    found.dedup();
    Ok(found)
}
