//! Schemas: the same type opens, a changed one is refused with both shown, a migration runs once (T12).

mod common;

use common::*;
use millpond_state::{ErrorKind, OperatorSpec, Result};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Account {
    owner: String,
    cents: u64,
}

/// Another type of the same name, as a changed program has it.
mod changed {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
    pub(crate) struct Account {
        pub(crate) owner: String,
        pub(crate) cents: i64,
        pub(crate) frozen: bool,
    }
}

fn pond_with_counts() -> Pond {
    let pond = Pond::small();
    let (store, counts) = pond.open_with::<u64>("counts");
    let keys: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    let changes: Vec<_> = keys.iter().enumerate().map(|(n, key)| (key.as_str(), Some(n as u64))).collect();
    put(&store, &counts, &changes);
    pond.checkpoint(&store, 1);
    pond
}

fn refusal<V: millpond_state::StateValue>(pond: &Pond, spec: OperatorSpec<V>) -> String {
    let error = pond.open().operator(spec).err().expect("a refusal");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    error.to_string()
}

#[test]
fn t12_the_same_type_opens_and_a_changed_one_is_an_error_that_shows_both() {
    let pond = pond_with_counts();
    pond.open_with::<u64>("counts");
    assert_eq!(
        refusal::<i64>(&pond, OperatorSpec::new("counts", "test")),
        "operator `counts` stores u64 in this checkpoint (schema 1), the code now wants i64. \
         Give the operator `.schema(2, migrate)` or go back."
    );
}

#[test]
fn t12_a_struct_that_changed_under_its_name_is_shown_field_by_field() {
    let pond = Pond::small();
    let (store, accounts) = pond.open_with::<Account>("accounts");
    put(&store, &accounts, &[("a", Some(Account { owner: "o".into(), cents: 1 }))]);
    pond.checkpoint(&store, 1);
    drop((store, accounts));
    let error = refusal::<changed::Account>(&pond, OperatorSpec::new("accounts", "test"));
    assert!(error.contains("stores Account { owner: String, cents: u64 }"), "{error}");
    assert!(error.contains("wants Account { owner: String, cents: i64, frozen: bool }"), "{error}");
}

#[test]
fn t12_a_migration_runs_once_for_every_value() {
    let pond = pond_with_counts();
    let calls = Arc::new(AtomicUsize::new(0));
    let spec = || {
        let calls = calls.clone();
        OperatorSpec::<String>::new("counts", "test").schema(2, move |old: u64| {
            calls.fetch_add(1, Ordering::Relaxed);
            format!("<{old}>")
        })
    };
    {
        // A crash before the next checkpoint: nothing has changed.
        let store = pond.open();
        let names = store.operator(spec()).unwrap();
        assert_eq!(get(&store, &names, "7").as_deref(), Some("<7>"));
        assert_eq!(calls.swap(0, Ordering::Relaxed), 5000);
    }
    {
        let store = pond.open();
        let names = store.operator(spec()).unwrap();
        assert_eq!(calls.swap(0, Ordering::Relaxed), 5000);
        put(&store, &names, &[("7", Some("new".into()))]);
        pond.checkpoint(&store, 2);
    }
    let store = pond.open();
    let names = store.operator(spec()).unwrap();
    assert_eq!(names.keys(), 5000);
    let values = all(&names);
    assert_eq!((values.len(), values["7"].as_str(), values["4999"].as_str()), (5000, "new", "<4999>"));
    assert_eq!(calls.load(Ordering::Relaxed), 0, "migrated once");
    let manifest = pond.newest().snapshot.unwrap();
    assert_eq!(manifest.manifest().operators[0].schema.version, 2);
    assert_eq!(manifest.manifest().operators[0].schema.shape, "String");
    drop((store, names));
    assert!(refusal::<u64>(&pond, OperatorSpec::new("counts", "test")).contains("which is older"));
}

#[test]
fn t12_a_step_without_its_migration_or_from_another_type_is_refused() {
    let pond = pond_with_counts();
    let missing = refusal(&pond, OperatorSpec::<String>::new("counts", "test").schema(3, |old: i64| old.to_string()));
    assert!(missing.contains("no migration from schema 1"), "{missing}");
    let other = refusal(&pond, OperatorSpec::<String>::new("counts", "test").schema(2, |old: i64| old.to_string()));
    assert!(other.contains("migration takes i64. Let it take u64."), "{other}");
    let store = pond.open();
    let spec = OperatorSpec::<String>::new("counts", "test")
        .schema(3, |old: i64| old.to_string())
        .migrate_from(1, |old: u64| old.to_string());
    let names = store.operator(spec).unwrap();
    assert_eq!(get(&store, &names, "12").as_deref(), Some("12"));
}

#[test]
fn another_kind_of_operator_under_the_same_name_is_refused() {
    let pond = pond_with_counts();
    let error = refusal(&pond, OperatorSpec::<u64>::new("counts", "window"));
    assert!(error.contains("is test in this checkpoint, in the code it is window"), "{error}");
    assert!(refusal(&pond, OperatorSpec::<u64>::new("", "test")).contains("1 to 200 bytes"));
}

#[test]
fn a_kind_that_changes_on_purpose_is_migrated_also_at_the_same_version() {
    let pond = pond_with_counts();
    let spec = || OperatorSpec::<(u64, u64)>::new("counts", "timed").migrate_from_kind("test", 1, |n: u64| (n, 7));
    {
        let store = pond.open();
        let timed = store.operator(spec()).unwrap();
        assert_eq!(get(&store, &timed, "12"), Some((12, 7)));
        drop(timed);
        pond.checkpoint(&store, 2);
    }
    let store = pond.open();
    let timed = store.operator(spec()).unwrap();
    assert_eq!(get(&store, &timed, "12"), Some((12, 7)), "migrated once");
    drop((store, timed));
    let other = refusal(&pond, OperatorSpec::new("counts", "test").migrate_from_kind("timed", 1, |n: u64| n));
    assert!(other.contains("stores [u64; 2]") && other.contains("its migration takes u64"), "{other}");
}

#[test]
fn a_type_that_cannot_be_traced_is_kept_by_its_name() {
    let pond = Pond::small();
    {
        let (store, numbers) = pond.open_with::<NonZeroU32>("numbers");
        put(&store, &numbers, &[("a", NonZeroU32::new(7))]);
        pond.checkpoint(&store, 1);
    }
    let (store, numbers) = pond.open_with::<NonZeroU32>("numbers");
    assert_eq!(get(&store, &numbers, "a"), NonZeroU32::new(7));
    drop((store, numbers));
    assert!(refusal::<u32>(&pond, OperatorSpec::new("numbers", "test")).contains("(not traced)"));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    n: u64,
}

#[test]
fn h16_a_value_that_does_not_come_back_stops_the_freeze_and_names_operator_and_cause() {
    let pond = Pond::small();
    let (store, sparse) = pond.open_with::<Sparse>("sparse");
    put(&store, &sparse, &[("a", Some(Sparse { note: None, n: 1 }))]);
    let error = store.freeze(1, &millpond_state::on_this_thread).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Codec);
    assert!(error.to_string().contains("operator `sparse`"), "{error}");
    assert!(error.to_string().contains("skip_serializing_if"), "{error}");
    assert_eq!(store.freeze(1, &millpond_state::on_this_thread).err().unwrap().kind(), ErrorKind::Poisoned);
}

#[test]
fn h16_a_visit_cannot_store_what_does_not_come_back_either() -> Result<()> {
    let pond = Pond::new(millpond_state::StoreOptions { shards: 1, partitions: 1, ..Default::default() });
    let (store, sparse) = pond.open_with::<Sparse>("sparse");
    put(&store, &sparse, &[("a", Some(Sparse { note: Some("x".into()), n: 1 }))]);
    pond.checkpoint(&store, 1);
    let mut partition = sparse.partition(0);
    partition.visit_all(|visit| {
        visit.put(Some(Sparse { note: None, n: 2 }));
        Result::Ok(())
    })?;
    partition.commit_task()?;
    drop(partition);
    assert_eq!(store.freeze(2, &millpond_state::on_this_thread).err().unwrap().kind(), ErrorKind::Codec);
    Ok(())
}
