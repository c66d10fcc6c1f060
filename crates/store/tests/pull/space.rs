//! A disk that gets full while a model arrives: what arrived stays, and the pull goes on when there is room.
//! Needs a mount of its own, and so the rights for one; elsewhere it says that it was not run.

use std::path::Path;
use std::process::Command;

use hypura_store::{PullError, PullRequest};

use crate::kit::{Machine, model, request};
use crate::server::{Hub, Model};

/// A file system in memory.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0).status());
    }
}

fn resize(folder: &Path, how: &str) -> bool {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", how, "tmpfs"]).arg(folder).output();
    mounted.is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_disk_keeps_what_arrived_and_goes_on_with_room() {
    let hub = Hub::start();
    hub.add("r", Model::new(vec![("m-Q4_K_M.gguf".to_owned(), model(1, 6 << 20, 0, 1))]));
    let machine = Machine::new();
    let folder = machine.at("hub");
    std::fs::create_dir_all(&folder).unwrap();
    if !resize(&folder, "size=4m") {
        println!("not run: no right to mount a file system");
        return;
    }
    let _mount = Mount(&folder);
    let error = machine.pull(&hub, "hf.co/o/r").unwrap_err();
    assert!(matches!(error, PullError::NoRoom { .. }), "{error}");
    let forced = PullRequest { force: true, ..request("hf.co/o/r") };
    let error = machine.store(&hub).pulls().pull(&forced, &mut |_| {}, &|| true).unwrap_err();
    assert!(matches!(error, PullError::Io { .. }) && error.to_string().contains("kept"), "{error}");
    let partial = machine.store(&hub).pulls().partials().remove(0);
    assert!(partial.have_bytes > 2 << 20, "{partial:?}");
    assert!(resize(&folder, "remount,size=64m"));
    machine.store(&hub).pulls().pull(&forced, &mut |_| {}, &|| true).unwrap();
    machine.check_blobs(1);
}
