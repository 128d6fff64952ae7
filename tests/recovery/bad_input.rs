//! Directories that are damaged, strange or in use: a clear message, and nothing lost once it is put right.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millpond_fault_injection::files::Files;
use millpond_fault_injection::points::{self, Point};
use millpond_fault_injection::victim::Pipeline;
use millpond_fault_injection::{Ended, Lineage, World, kill_at};

const LIMIT: Duration = Duration::from_secs(30);

/// A directory with a few checkpoints and batches to replay, whose process was killed.
fn killed(seed: u64) -> (Files, Lineage) {
    killed_at_commit(seed, 2)
}

fn killed_at_commit(seed: u64, hit: u32) -> (Files, Lineage) {
    let mut world = Files::new(Pipeline::Files, seed).unwrap();
    let mut lineage = Lineage::new(world.setup());
    kill_at(&mut lineage, &mut world, Point { name: "checkpoint-deleted", hit: 1 }, "").unwrap();
    kill_at(&mut lineage, &mut world, Point { name: "after-commit", hit }, "").unwrap();
    (world, lineage)
}

/// A start that is refused: it ends with status 1 and says all of this, and no reader sees anything of it.
fn refused(lineage: &mut Lineage, world: &mut dyn World, expected: &[&str]) {
    let mut process = lineage.start("").unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    let said = process.said();
    for text in expected {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
    world.look().unwrap();
}

fn pond(world: &Files) -> PathBuf {
    world.setup().directory
}

/// The files of a folder, sorted by name.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn segments(world: &Files) -> Vec<PathBuf> {
    let mut found = files_in(&pond(world).join("log"));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found
}

fn manifests(world: &Files) -> Vec<PathBuf> {
    let mut found = files_in(&pond(world).join("checkpoints/manifests"));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "manifest"));
    found
}

/// Changes a file and gives the bytes it had.
fn change(path: &Path, f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    f(&mut bytes);
    // A new file: the old one may be a hard link of another.
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    before
}

#[test]
fn files_of_nobody_in_our_folders_do_no_harm_and_beside_them_are_refused_by_name() {
    let (mut world, mut lineage) = killed(21);
    for folder in ["log", "checkpoints", "checkpoints/files", "checkpoints/manifests", "live"] {
        fs::write(pond(&world).join(folder).join("garbage.txt"), "not ours").unwrap();
    }
    fs::write(pond(&world).join("LOCK"), [0xFF; 300]).unwrap();
    kill_at(&mut lineage, &mut world, points::SINK[1], "").unwrap();
    fs::write(pond(&world).join("notes.txt"), "not ours").unwrap();
    refused(&mut lineage, &mut world, &["is not the directory of an application", "`notes.txt`", "pond"]);
    fs::remove_file(pond(&world).join("notes.txt")).unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn a_truncated_or_overwritten_newest_manifest_makes_the_next_start_use_the_older_checkpoint() {
    for damage in [|bytes: &mut Vec<u8>| bytes.truncate(40), |bytes: &mut Vec<u8>| bytes.fill(0xA5)] {
        let (mut world, mut lineage) = killed(22);
        assert!(manifests(&world).len() >= 2);
        change(manifests(&world).last().unwrap(), damage);
        lineage.finish(&mut world).unwrap();
    }
}

#[test]
fn without_any_sound_manifest_nothing_is_started_and_nothing_overwritten() {
    let (mut world, mut lineage) = killed(23);
    let kept: Vec<_> =
        manifests(&world).iter().map(|path| (path.clone(), change(path, |bytes| bytes.fill(0)))).collect();
    refused(&mut lineage, &mut world, &["pond: none of the", "can be used", "Restore the directory"]);
    for (path, bytes) in kept {
        fs::write(path, bytes).unwrap();
    }
    lineage.finish(&mut world).unwrap();
}

#[test]
fn deleted_checkpoints_are_missed_and_nothing_is_started_empty() {
    let (mut world, mut lineage) = killed(24);
    let checkpoints = pond(&world).join("checkpoints");
    fs::rename(&checkpoints, world.place().join("moved")).unwrap();
    refused(&mut lineage, &mut world, &["holds a log but no checkpoint", "Restore them"]);
    fs::remove_dir_all(&checkpoints).unwrap();
    fs::rename(world.place().join("moved"), &checkpoints).unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn damage_in_the_log_is_reported_with_its_segment_and_never_skipped() {
    let (mut world, mut lineage) = killed(25);
    // Frames begin at 4096; the very first is below what is known to be synced.
    let segment = segments(&world).first().unwrap().clone();
    let before = change(&segment, |bytes| bytes[4096 + 40] ^= 0x10);
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    refused(&mut lineage, &mut world, &[&name, "4096"]);
    fs::write(&segment, before).unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn a_log_cut_short_of_what_was_committed_is_refused_with_both_batches() {
    // Far enough that what the first process left planned is done: this commit is of a plan in the newest segment.
    let (mut world, mut lineage) = killed_at_commit(26, 12);
    // The newest segment, after its header: nothing in the log says any more that there was something.
    let segment = segments(&world).last().unwrap().clone();
    let before = change(&segment, |bytes| bytes.truncate(4096));
    refused(&mut lineage, &mut world, &["sink `out` has committed batch", "the log in", "ends at"]);
    // The refused start has written nothing that would be in the way.
    let after = segments(&world);
    assert_eq!(after.last(), Some(&segment), "{after:?}");
    fs::write(&segment, before).unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn an_older_segment_of_the_log_cut_short_is_damage_with_its_place() {
    let (mut world, mut lineage) = killed(33);
    let segment = segments(&world).first().unwrap().clone();
    let before = change(&segment, |bytes| bytes.truncate(4096));
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    refused(&mut lineage, &mut world, &[&name, "offset 4096", "damaged"]);
    fs::write(&segment, before).unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn the_directory_of_another_application_is_refused_with_both_names() {
    let (mut world, mut lineage) = killed(27);
    lineage.setup_mut().application = "other".into();
    refused(&mut lineage, &mut world, &["belongs to application `words`, not to `other`", "pond"]);
    lineage.setup_mut().application = "words".into();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn a_log_of_a_newer_format_is_refused_with_both_versions() {
    let (mut world, mut lineage) = killed(28);
    let segment = segments(&world).last().unwrap().clone();
    let before = change(&segment, |bytes| bytes[8..12].copy_from_slice(&2_u32.to_le_bytes()));
    refused(&mut lineage, &mut world, &["has format version 2", "knows versions up to 1", "use the newer program"]);
    fs::write(&segment, before).unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn a_checkpoint_of_a_newer_format_is_refused_with_both_versions() {
    let (mut world, mut lineage) = killed(29);
    // As a newer version writes it: the version, and the checksum over all of it.
    let newer = |bytes: &mut Vec<u8>| {
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let body = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_le_bytes());
    };
    let newest = manifests(&world).last().unwrap().clone();
    let before = change(&newest, newer);
    refused(&mut lineage, &mut world, &["format version 2", "reads version 1"]);
    fs::write(&newest, before).unwrap();
    lineage.finish(&mut world).unwrap();
}

#[test]
fn a_place_where_nothing_can_be_written_is_refused_by_path() {
    let mut world = Files::new(Pipeline::Files, 30).unwrap();
    world.feed().unwrap();
    let mut lineage = Lineage::new(world.setup());
    // A file where the directory should be.
    fs::write(pond(&world), "a file").unwrap();
    refused(&mut lineage, &mut world, &["pond"]);
    fs::remove_file(pond(&world)).unwrap();
    // Root ignores modes; nobody makes directories in /sys.
    let log = world.place().join("of-sys");
    let mut setup = world.setup();
    setup.directory = "/sys/pond".into();
    let mut process = millpond_fault_injection::Process::start(&setup, "", &log).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    assert!(process.said().contains("/sys/pond"), "{}", process.said());
    // The same for the output.
    setup = world.setup();
    setup.output = "/sys/out".into();
    let mut process = millpond_fault_injection::Process::start(&setup, "", &log).unwrap();
    assert_eq!(process.wait(LIMIT).unwrap(), Ended::Failed, "{}", process.said());
    assert!(process.said().contains("/sys/out") && process.said().contains("`out`"), "{}", process.said());
    lineage.finish(&mut world).unwrap();
}

#[test]
fn a_second_process_with_the_same_directory_is_refused_with_the_holder_and_harms_nobody() {
    let mut world = Files::new(Pipeline::Files, 31).unwrap();
    world.feed().unwrap();
    let mut lineage = Lineage::new(world.setup());
    let mut first = lineage.start("").unwrap();
    first.wait_ready(LIMIT).unwrap();
    let mut second =
        millpond_fault_injection::Process::start(&world.setup(), "", &world.place().join("second.log")).unwrap();
    assert_eq!(second.wait(LIMIT).unwrap(), Ended::Failed, "{}", second.said());
    let holder = format!("it is in use by process {} since", first.id());
    assert!(second.said().contains(&holder), "{}", second.said());
    world.feed().unwrap();
    first.wait_while_alive(LIMIT, "all output", || world.is_complete()).unwrap();
    drop(first);
    lineage.finish(&mut world).unwrap();
}

#[test]
fn an_empty_directory_under_a_name_that_has_committed_before_is_refused() {
    let (mut world, mut lineage) = killed(32);
    let moved = world.place().join("moved");
    fs::rename(pond(&world), &moved).unwrap();
    refused(
        &mut lineage,
        &mut world,
        &["sink `out` has committed batch", "for another directory than", "Restore that directory"],
    );
    fs::remove_dir_all(pond(&world)).unwrap();
    fs::rename(&moved, pond(&world)).unwrap();
    lineage.finish(&mut world).unwrap();
}
