//! A link between two machines, in user space: it delays what goes through and limits how much does, as a
//! real one does. Network namespaces with `tc netem` need root, and a kernel that has it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a link does.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// One way.
    pub delay: Duration,
    /// Each way.
    pub bytes_per_s: f64,
}

/// A link to an address, until the process ends; gives the address of its near end.
pub fn link(to: &str, link: Link) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (near, far) = (listener.local_addr().unwrap().to_string(), to.to_owned());
    std::thread::spawn(move || {
        for here in listener.incoming().flatten() {
            let Ok(there) = TcpStream::connect(&far) else { continue };
            for (from, to) in [(&here, &there), (&there, &here)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || carry(from, to, link));
            }
        }
    });
    near
}

/// One direction of one connection.
fn carry(mut from: TcpStream, mut to: TcpStream, link: Link) {
    let (packets, arriving) = mpsc::sync_channel::<(Instant, Vec<u8>)>(64);
    let _ = to.set_nodelay(true);
    std::thread::spawn(move || {
        for (due, packet) in arriving {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&packet).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    // The cable is free again then.
    let mut free = Instant::now();
    let mut packet = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut packet) {
        free = free.max(Instant::now()) + Duration::from_secs_f64(length as f64 / link.bytes_per_s);
        if packets.send((free + link.delay, packet[..length].to_vec())).is_err() {
            break;
        }
    }
}
