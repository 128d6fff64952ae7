//! Migration of stored values from an older schema: all of them, once, when the operator is opened.
//! The result goes in as sorted table files; the next checkpoint makes it last. A crash before that
//! leaves the old snapshot, from which it is done again.

use crate::StateValue;
use crate::codec;
use crate::error::{Error, Result};
use crate::rows::{encode_stored, split_stored};
use crate::shared::Shared;

/// A table file is ended when it has so many bytes.
const FILE_BYTES: u64 = 64 << 20;

pub(crate) fn migrate<V: StateValue>(
    shared: &Shared,
    operator: &str,
    from: u32,
    to: u32,
    convert: &dyn Fn(&[u8]) -> Result<V>,
) -> Result<()> {
    let mut files = Vec::new();
    let mut file = shared.database.table_file(shared.spill_file());
    let mut migrated = Vec::new();
    let mut rows = 0_u64;
    shared.database.scan(operator, &[], None, |key, stored| -> Result<bool> {
        let (version, payload) = split_stored(stored)?;
        if version != from {
            return Err(Error::corrupt(format!(
                "operator `{operator}`: a stored value has schema version {version} instead of {from}"
            )));
        }
        let value = convert(payload).map_err(|error| error.context(format_args!("operator `{operator}`")))?;
        migrated.clear();
        encode_stored(&value, to, &mut migrated)?;
        if rows == 0 {
            codec::check_bytes_round_trip::<V>(split_stored(&migrated)?.1)
                .map_err(|error| error.context(format_args!("operator `{operator}`")))?;
        }
        file.put(key, Some(&migrated))?;
        rows += 1;
        if file.file_bytes() >= FILE_BYTES {
            let next = shared.database.table_file(shared.spill_file());
            files.extend(std::mem::replace(&mut file, next).finish()?);
        }
        Ok(true)
    })?;
    files.extend(file.finish()?);
    shared.database.ingest(operator, files)?;
    tracing::info!(operator, from, to, rows, "migrated stored values");
    Ok(())
}
