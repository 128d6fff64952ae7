//! What every [`SnapshotStore`] must do, as a test that any implementation can call.

use crate::snapshot::{SnapshotStore, collect_garbage};
use std::io::Read;
use std::path::Path;

/// Runs all checks on an empty store; `scratch` is an empty directory for the files that go in and
/// come out.
///
/// # Panics
/// Where the store does not do what the trait says.
pub fn snapshot_store(store: &dyn SnapshotStore, scratch: &Path) {
    let input = |name: &str, content: &[u8]| {
        let path = scratch.join(name);
        std::fs::write(&path, content).expect("write a file into the scratch directory");
        path
    };
    let read = |name: &str| {
        let mut content = Vec::new();
        store.read(name).expect("read a file that was put").read_to_end(&mut content).expect("read to its end");
        content
    };

    assert!(store.files().unwrap().is_empty(), "a new store has no files");
    assert!(store.batches().unwrap().is_empty(), "a new store has no manifests");
    assert!(store.bad().unwrap().is_empty(), "a new store has no bad marks");
    assert_eq!(store.size("000001-5.sst").unwrap(), None, "the size of a file that is not there");
    assert!(store.read("000001-5.sst").is_err(), "reading a file that is not there");
    assert!(store.fetch("000001-5.sst", &scratch.join("none"), true).is_err(), "fetching a file that is not there");
    assert!(store.manifest(1).is_err(), "a manifest that is not there");
    store.delete("000001-5.sst").expect("deleting a file that is not there");
    store.withdraw(1).expect("withdrawing a manifest that is not there");

    store.put("000001-5.sst", &input("one", b"first")).unwrap();
    store.put("CURRENT-0.meta", &input("empty", b"")).unwrap();
    assert_eq!(store.size("000001-5.sst").unwrap(), Some(5));
    assert_eq!(store.size("CURRENT-0.meta").unwrap(), Some(0));
    assert_eq!(read("000001-5.sst"), b"first");
    std::fs::remove_file(scratch.join("one")).unwrap();
    assert_eq!(read("000001-5.sst"), b"first", "a file stays when the one it was put from goes");
    store.put("000001-5.sst", &input("two", b"other")).unwrap();
    assert_eq!(read("000001-5.sst"), b"other", "a put replaces");
    assert!(store.put("000001-5.sst", &scratch.join("none")).is_err(), "putting a file that is not there");
    assert_eq!(read("000001-5.sst"), b"other", "a put that fails leaves what was there");
    let mut files = store.files().unwrap();
    files.sort();
    assert_eq!(files, ["000001-5.sst", "CURRENT-0.meta"]);

    for may_link in [true, false] {
        let to = scratch.join(format!("fetched-{may_link}"));
        store.fetch("000001-5.sst", &to, may_link).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"other");
        if !may_link {
            std::fs::write(&to, b"changed").unwrap();
            assert_eq!(read("000001-5.sst"), b"other", "a copy can be written to");
        }
        std::fs::remove_file(&to).unwrap();
        assert_eq!(read("000001-5.sst"), b"other", "a fetched file can be removed");
    }

    store.publish(20, b"twenty").unwrap();
    store.publish(3, b"three").unwrap();
    store.publish(u64::MAX, b"").unwrap();
    assert_eq!(store.batches().unwrap(), [3, 20, u64::MAX], "batches ascend");
    assert_eq!(store.manifest(20).unwrap(), b"twenty");
    assert_eq!(store.manifest(u64::MAX).unwrap(), b"");
    store.publish(20, b"twenty again").unwrap();
    assert_eq!(store.manifest(20).unwrap(), b"twenty again", "a manifest is replaced");
    store.withdraw(u64::MAX).unwrap();
    store.withdraw(20).unwrap();
    assert_eq!(store.batches().unwrap(), [3]);
    assert_eq!(store.size("000001-5.sst").unwrap(), Some(5), "files stay when a manifest goes");

    store.mark_bad("000001-5.sst", "a reason").unwrap();
    store.mark_bad("000001-5.sst", "another reason").unwrap();
    assert_eq!(store.bad().unwrap(), [("000001-5.sst".to_string(), "another reason".to_string())]);
    store.put("000001-5.sst", &input("three", b"sound")).unwrap();
    assert!(store.bad().unwrap().is_empty(), "a put takes the mark away");
    store.mark_bad("000001-5.sst", "a reason").unwrap();
    assert_eq!(collect_garbage(store).unwrap(), 0, "nothing is deleted beside a manifest that is none");
    store.withdraw(3).unwrap();
    assert_eq!(collect_garbage(store).unwrap(), 2, "what no manifest names is deleted");
    assert!(store.files().unwrap().is_empty());
    assert!(store.bad().unwrap().is_empty(), "a mark goes with its file");
}
