//! Cursors: as every sink keeps them, as the file sink writes them, and the note for people.

use crate::check::{comes_back, sealed, stable};
use crate::engine::note::Noted;
use crate::fields::Fields;
use crate::sink::Cursor;
use crate::sink::files::cursor_file::Committed;

pub(super) fn run(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    match which % 8 {
        0 => stable(bytes, Cursor::decode, Cursor::encode),
        1 => stable(&sealed(bytes), Cursor::decode, Cursor::encode),
        2 => stable(bytes, Committed::decode, Committed::encode),
        3 => {
            // The cursor inside has a checksum too.
            let mut bytes = bytes.to_vec();
            if let Some(cursor) = bytes.get_mut(9..82) {
                let whole = sealed(cursor);
                cursor.copy_from_slice(&whole);
            }
            stable(&sealed(&bytes), Committed::decode, Committed::encode);
        }
        4 => stable(bytes, Noted::decode, Noted::encode),
        5 => {
            let mut bytes = bytes.to_vec();
            if bytes.len() >= 40 {
                let (head, sinks) = bytes.split_at_mut(36);
                let (sealed_head, sealed_sinks) = (sealed(head), sealed(sinks));
                head.copy_from_slice(&sealed_head);
                sinks.copy_from_slice(&sealed_sinks);
            }
            stable(&bytes, Noted::decode, Noted::encode);
        }
        6 => comes_back(&cursor(&mut Fields(bytes)), Cursor::decode, Cursor::encode),
        _ => {
            let mut fields = Fields(bytes);
            let committed = Committed {
                cursor: cursor(&mut fields),
                staged: fields.option(Fields::text).filter(|name| !name.is_empty()),
            };
            comes_back(&committed, Committed::decode, Committed::encode);
            let (run, at) = (fields.fixed(), fields.time());
            let noted = Noted { run, committed: at, sinks: fields.list(|fields| (fields.text(), fields.text())) };
            comes_back(&noted, Noted::decode, Noted::encode);
        }
    }
}

fn cursor(fields: &mut Fields<'_>) -> Cursor {
    Cursor {
        deployment: fields.fixed(),
        run: fields.fixed(),
        batch: fields.time(),
        plans: fields.u64(),
        digest: fields.u64(),
        records: fields.u64(),
    }
}
