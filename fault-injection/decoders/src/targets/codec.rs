//! The codec of users' values: the envelope {codec, schema version, payload}, and the rows that the engine itself keeps in state.

use std::collections::BTreeMap;
use std::fmt::Debug;

use millpond_state::{codec, encode_stored, split_stored};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::check;
use crate::check::{watched, within};
use crate::fields::Fields;
use crate::stream::state::time_rows::{self, keys};
use crate::stream::window::rows;

/// A state as a program may have it, of everything that serde can say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Everything {
    Nothing,
    Numbers(i8, u16, i32, u64, i128, bool),
    Floats { one: f32, two: f64 },
    Texts(char, String, Option<Box<Everything>>),
    Many(Vec<Everything>, BTreeMap<String, Vec<u32>>, [u8; 3]),
}

pub(super) fn run(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    match which % 10 {
        0 => {
            if let Some((version, payload)) = watched(bytes, |_| split_stored(bytes)) {
                assert!(payload.len() < bytes.len());
                // The shortest encoding of the version is the one that is written.
                let written = encode_stored(&(), version).expect("nothing to refuse");
                assert_eq!(split_stored(&written).expect("just written"), (version, &[][..]));
            }
        }
        1 => value::<u64>(bytes),
        2 => value::<String>(bytes),
        3 => value::<(String, Option<i64>, Vec<u8>)>(bytes),
        4 => value::<BTreeMap<String, Vec<u32>>>(bytes),
        5 => value::<Everything>(bytes),
        6 => value::<time_rows::Row>(bytes),
        7 => value::<(time_rows::RowKey, u32)>(bytes),
        8 => value::<rows::Row<(String, u64)>>(bytes),
        _ => {
            let found: Vec<&[u8]> = keys(bytes).collect();
            assert!(found.iter().map(|key| key.len() + 4).sum::<usize>() <= bytes.len());
            let mut fields = Fields(bytes);
            let version = fields.u32();
            let made = (fields.text(), fields.option(|fields| fields.u64() as i64), fields.bytes());
            let stored = encode_stored(&made, version).expect("serde refuses nothing here");
            let (found, payload) = split_stored(&stored).expect("just written");
            let decoded: (String, Option<i64>, Vec<u8>) = codec::decode(payload).expect("just written");
            assert_eq!((found, decoded), (version, made));
        }
    }
}

/// What a value may take beside its bytes: a text that claims to be long is given its room, zeroed and untouched, before it is found that it
/// ends too early. The codec's limit on that is documented; serde reserves 1 MiB at most for each list inside another.
const ROOM_BYTES: usize = codec::VALUE_LIMIT_BYTES + (8 << 20);

fn value<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let limit = ROOM_BYTES + check::FACTOR * bytes.len();
    let Some(value) = within(limit, bytes, codec::decode::<T>) else { return };
    let encode = |value: &T| {
        let mut out = Vec::new();
        codec::encode(value, &mut out).expect("it was decoded");
        out
    };
    let once = encode(&value);
    // By bytes and not by values: a NaN is not equal to itself.
    let again: T = codec::decode(&once).expect("just encoded");
    assert_eq!(encode(&again), once, "{value:?}");
}
