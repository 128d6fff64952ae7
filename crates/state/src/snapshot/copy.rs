//! Copying a snapshot into another store, byte by byte: what is copied has been verified.

use super::{Snapshot, SnapshotStore};
use crate::error::{Error, Result};
use crate::files;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

impl Snapshot {
    /// Copies the snapshot into `target`, with `meta` as the section that a checkpoint's caller gives. Nothing is shared with the
    /// original afterwards, no link either. Every checksum is compared on the way. `scratch` is a directory on the target's file
    /// system that is made for this and removed.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) naming a file that is not what was put; failures to read and write. The target then has no
    /// manifest of this batch.
    pub fn copy_to(&self, target: &dyn SnapshotStore, scratch: &Path, meta: Vec<u8>) -> Result<()> {
        files::remove_directory(scratch)?;
        files::make_directory(scratch)?;
        for file in &self.manifest.files {
            let path = scratch.join(&file.name);
            let (bytes, checksum) = copy_file(&mut *self.store.read(&file.name)?, &path)?;
            if (bytes, checksum) != (file.bytes, file.checksum) {
                return Err(Error::corrupt(format!(
                    "snapshot of batch {}: file {} is damaged: {bytes} bytes with checksum {checksum:08x}, written were {} with {:08x}",
                    self.manifest.batch, file.name, file.bytes, file.checksum
                )));
            }
            target.put(&file.name, &path)?;
            files::remove_file(&path)?;
        }
        let manifest = super::Manifest { meta, ..(*self.manifest).clone() };
        target.publish(manifest.batch, &manifest.encode()?)?;
        files::remove_directory(scratch)
    }
}

/// Copies what `from` gives to a new file, durably; gives its size and CRC-32.
fn copy_file(from: &mut dyn Read, to: &Path) -> Result<(u64, u32)> {
    let failed = |error| Error::io("copy a snapshot's file to", to, error);
    let mut out = File::create(to).map_err(failed)?;
    let (mut checksum, mut bytes, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        match from.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => {
                checksum.update(&buffer[..read]);
                out.write_all(&buffer[..read]).map_err(failed)?;
                bytes += read as u64;
            }
        }
    }
    out.sync_all().map_err(failed)?;
    debug_assert_eq!(fs::metadata(to).map(|found| found.len()).ok(), Some(bytes));
    Ok((bytes, checksum.finalize()))
}
