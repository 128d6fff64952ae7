//! Decoders: from a borrowed record to what the pipeline computes with.

use std::marker::PhantomData;

use millpond_core::BoxError;
use serde::de::DeserializeOwned;

use crate::record::{OwnedRecord, RecordRef};

/// Makes an item of a record, or refuses it with the reason.
///
/// Must be deterministic: after a crash the same record is decoded again and has to give the same item.
pub trait Decode: Send + Sync + 'static {
    /// What it makes.
    type Item: Send + 'static;

    /// Decodes one record.
    ///
    /// # Errors
    /// Why the record is refused; what happens then, the source's settings say.
    fn decode(&self, record: &RecordRef<'_>) -> Result<Self::Item, BoxError>;
}

/// The record itself, copied; made by [`KafkaSource::raw`](crate::KafkaSource::raw).
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Decode for Raw {
    type Item = OwnedRecord;

    fn decode(&self, record: &RecordRef<'_>) -> Result<OwnedRecord, BoxError> {
        Ok(record.to_owned())
    }
}

/// The value as text; made by [`KafkaSource::utf8`](crate::KafkaSource::utf8).
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Decode for Utf8 {
    type Item = String;

    fn decode(&self, record: &RecordRef<'_>) -> Result<String, BoxError> {
        Ok(std::str::from_utf8(record.value().ok_or("it has no value")?)?.to_owned())
    }
}

/// The value through serde; made by [`KafkaSource::json`](crate::KafkaSource::json).
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Default for Json<T> {
    fn default() -> Self {
        Json(PhantomData)
    }
}

impl<T: DeserializeOwned + Send + 'static> Decode for Json<T> {
    type Item = T;

    fn decode(&self, record: &RecordRef<'_>) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(record.value().ok_or("it has no value")?)?)
    }
}

/// A function of the program; made by [`KafkaSource::decode`](crate::KafkaSource::decode).
pub struct DecodeWith<F, T, E> {
    function: F,
    result: PhantomData<fn() -> (T, E)>,
}

impl<F, T, E> DecodeWith<F, T, E> {
    pub(crate) fn new(function: F) -> Self {
        DecodeWith { function, result: PhantomData }
    }
}

impl<F, T, E> std::fmt::Debug for DecodeWith<F, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DecodeWith")
    }
}

impl<F, T, E> Decode for DecodeWith<F, T, E>
where
    F: Fn(&RecordRef<'_>) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Into<BoxError> + 'static,
{
    type Item = T;

    fn decode(&self, record: &RecordRef<'_>) -> Result<T, BoxError> {
        (self.function)(record).map_err(Into::into)
    }
}
