//! The structure of a state's type: traced through serde, written down as text, kept in the manifest
//! and compared at the next start, so that a changed type is an error that shows both.
//!
//! What cannot be traced (a type whose `Deserialize` refuses the probe values, such as a non-zero
//! integer) is known by its type name only, and the text says so: a change inside it goes unnoticed.

use serde::de::DeserializeOwned;
use serde_reflection::{ContainerFormat, Error, Format, Registry, Samples, Tracer, TracerConfig, VariantFormat};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Most times a type is traced for all variants of its enums to be met: one a variant.
const TRACE_LIMIT: usize = 4096;

/// Longest text kept of a structure, in bytes; longer ones are cut and end in a checksum.
const SHAPE_LIMIT_BYTES: usize = 16 << 10;

/// A version given by the user and the structure traced from the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The user's number for the structure; 1 unless a migration was given.
    pub version: u32,
    /// The structure as text, as in `Order { card: String, cents: u64 }`.
    pub shape: String,
}

/// The structure of a type.
pub(crate) struct Shape {
    pub(crate) text: String,
    /// Its values keep nothing on the heap, as far as can be seen.
    pub(crate) flat: bool,
}

/// Traces the structure of `T`; by its name if it cannot be traced.
pub(crate) fn shape_of<T: DeserializeOwned>() -> Shape {
    match catch_unwind(AssertUnwindSafe(trace::<T>)) {
        Ok(Some((root, registry))) => {
            let flat = is_flat(&root, &registry, &mut BTreeSet::new());
            let mut text = describe(&root, &registry);
            if text.len() > SHAPE_LIMIT_BYTES {
                let checksum = crc32fast::hash(text.as_bytes());
                let mut end = SHAPE_LIMIT_BYTES;
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                text.truncate(end);
                text.push_str(&format!(".. (checksum {checksum:08x})"));
            }
            Shape { text, flat }
        }
        _ => Shape { text: format!("{} (not traced)", std::any::type_name::<T>()), flat: false },
    }
}

fn trace<T: DeserializeOwned>() -> Option<(Format, Registry)> {
    let samples = Samples::new();
    let mut missing: Vec<String> = Vec::new();
    let mut rounds = 1;
    loop {
        let mut tracer = Tracer::new(TracerConfig::default());
        let mut root = None;
        for _ in 0..rounds {
            // Told that an enum is incomplete, the tracer looks for its next variant.
            for name in &missing {
                let _ = tracer.check_incomplete_enum(name);
            }
            let (format, _) = tracer.trace_type::<T>(&samples).ok()?;
            root = Some(format);
        }
        let mut root = root?;
        serde_reflection::FormatHolder::normalize(&mut root).ok()?;
        match tracer.registry() {
            Ok(registry) => return Some((root, registry)),
            Err(Error::MissingVariants(names)) => {
                if rounds >= TRACE_LIMIT {
                    return None;
                }
                missing = names;
                rounds *= 2;
            }
            Err(_) => return None,
        }
    }
}

fn describe(root: &Format, registry: &Registry) -> String {
    let mut text = String::new();
    let mut todo = Vec::new();
    let mut done = BTreeSet::new();
    match root {
        // The outermost type is shown in place.
        Format::TypeName(name) => {
            done.insert(name.clone());
            write_container(name, registry, &mut text, &mut todo);
        }
        _ => write_format(root, &mut text, &mut todo),
    }
    let mut next = 0;
    while next < todo.len() {
        let name = todo[next].clone();
        next += 1;
        if done.insert(name.clone()) {
            text.push_str("; ");
            write_container(&name, registry, &mut text, &mut todo);
        }
    }
    text
}

fn write_container(name: &str, registry: &Registry, text: &mut String, todo: &mut Vec<String>) {
    text.push_str(name);
    match registry.get(name) {
        None => text.push_str(" (not traced)"),
        Some(ContainerFormat::UnitStruct) => {}
        Some(ContainerFormat::NewTypeStruct(inner)) => write_tuple([&**inner], text, todo),
        Some(ContainerFormat::TupleStruct(fields)) => write_tuple(fields, text, todo),
        Some(ContainerFormat::Struct(fields)) => {
            write_fields(fields.iter().map(|field| (&field.name, &field.value)), text, todo);
        }
        Some(ContainerFormat::Enum(variants)) => {
            text.push_str(" = ");
            for (position, (index, variant)) in variants.iter().enumerate() {
                if position > 0 {
                    text.push_str(" | ");
                }
                if *index as usize != position {
                    text.push_str(&format!("{index}:"));
                }
                text.push_str(&variant.name);
                match &variant.value {
                    VariantFormat::Unit => {}
                    VariantFormat::Variable(_) => text.push_str("(..)"),
                    VariantFormat::NewType(inner) => write_tuple([&**inner], text, todo),
                    VariantFormat::Tuple(fields) => write_tuple(fields, text, todo),
                    VariantFormat::Struct(fields) => {
                        write_fields(fields.iter().map(|field| (&field.name, &field.value)), text, todo);
                    }
                }
            }
        }
    }
}

fn write_tuple<'a>(parts: impl IntoIterator<Item = &'a Format>, text: &mut String, todo: &mut Vec<String>) {
    text.push('(');
    for (position, part) in parts.into_iter().enumerate() {
        if position > 0 {
            text.push_str(", ");
        }
        write_format(part, text, todo);
    }
    text.push(')');
}

fn write_fields<'a>(fields: impl Iterator<Item = (&'a String, &'a Format)>, text: &mut String, todo: &mut Vec<String>) {
    text.push_str(" { ");
    for (position, (name, format)) in fields.enumerate() {
        if position > 0 {
            text.push_str(", ");
        }
        text.push_str(name);
        text.push_str(": ");
        write_format(format, text, todo);
    }
    text.push_str(" }");
}

fn write_format(format: &Format, text: &mut String, todo: &mut Vec<String>) {
    let mut wrapped = |before: &str, inner: &Format, after: &str| {
        text.push_str(before);
        write_format(inner, text, todo);
        text.push_str(after);
    };
    match format {
        Format::Variable(_) => text.push_str(".."),
        Format::TypeName(name) => {
            text.push_str(name);
            todo.push(name.clone());
        }
        Format::Unit => text.push_str("()"),
        Format::Bool => text.push_str("bool"),
        Format::I8 => text.push_str("i8"),
        Format::I16 => text.push_str("i16"),
        Format::I32 => text.push_str("i32"),
        Format::I64 => text.push_str("i64"),
        Format::I128 => text.push_str("i128"),
        Format::U8 => text.push_str("u8"),
        Format::U16 => text.push_str("u16"),
        Format::U32 => text.push_str("u32"),
        Format::U64 => text.push_str("u64"),
        Format::U128 => text.push_str("u128"),
        Format::F32 => text.push_str("f32"),
        Format::F64 => text.push_str("f64"),
        Format::Char => text.push_str("char"),
        Format::Str => text.push_str("String"),
        Format::Bytes => text.push_str("bytes"),
        Format::Option(inner) => wrapped("Option<", inner, ">"),
        Format::Seq(inner) => wrapped("Vec<", inner, ">"),
        Format::Map { key, value } => {
            wrapped("Map<", key, ", ");
            write_format(value, text, todo);
            text.push('>');
        }
        Format::Tuple(parts) => write_tuple(parts, text, todo),
        Format::TupleArray { content, size } => wrapped("[", content, &format!("; {size}]")),
    }
}

fn is_flat(format: &Format, registry: &Registry, inside: &mut BTreeSet<String>) -> bool {
    match format {
        Format::Variable(_) | Format::Str | Format::Bytes | Format::Seq(_) | Format::Map { .. } => false,
        Format::Option(inner) | Format::TupleArray { content: inner, .. } => is_flat(inner, registry, inside),
        Format::Tuple(parts) => parts.iter().all(|part| is_flat(part, registry, inside)),
        Format::TypeName(name) => {
            // A type inside itself is behind a pointer.
            if !inside.insert(name.clone()) {
                return false;
            }
            let flat = match registry.get(name) {
                None => false,
                Some(ContainerFormat::UnitStruct) => true,
                Some(ContainerFormat::NewTypeStruct(inner)) => is_flat(inner, registry, inside),
                Some(ContainerFormat::TupleStruct(fields)) => {
                    fields.iter().all(|field| is_flat(field, registry, inside))
                }
                Some(ContainerFormat::Struct(fields)) => {
                    fields.iter().all(|field| is_flat(&field.value, registry, inside))
                }
                Some(ContainerFormat::Enum(variants)) => variants.values().all(|variant| match &variant.value {
                    VariantFormat::Unit => true,
                    VariantFormat::Variable(_) => false,
                    VariantFormat::NewType(inner) => is_flat(inner, registry, inside),
                    VariantFormat::Tuple(fields) => fields.iter().all(|field| is_flat(field, registry, inside)),
                    VariantFormat::Struct(fields) => fields.iter().all(|field| is_flat(&field.value, registry, inside)),
                }),
            };
            inside.remove(name);
            flat
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;
    use std::num::NonZeroU64;

    #[derive(Serialize, Deserialize)]
    struct Order {
        card: String,
        cents: u64,
        kind: Kind,
    }

    #[derive(Serialize, Deserialize)]
    enum Kind {
        Plain,
        Rushed(u8),
        Split { parts: Vec<u32> },
    }

    #[derive(Serialize, Deserialize)]
    struct Tree {
        left: Option<Box<Tree>>,
        n: u8,
    }

    #[test]
    fn plain_types_read_as_in_code() {
        assert_eq!(shape_of::<u64>().text, "u64");
        assert_eq!(shape_of::<(i64, Option<String>)>().text, "(i64, Option<String>)");
        assert_eq!(shape_of::<BTreeMap<String, Vec<u8>>>().text, "Map<String, Vec<u8>>");
        assert_eq!(shape_of::<[u8; 3]>().text, "[u8; 3]");
    }

    #[test]
    fn structs_and_all_variants_of_nested_enums_are_seen() {
        assert_eq!(
            shape_of::<Order>().text,
            "Order { card: String, cents: u64, kind: Kind }; Kind = Plain | Rushed(u8) | Split { parts: Vec<u32> }"
        );
        assert_eq!(shape_of::<Tree>().text, "Tree { left: Option<Tree>, n: u8 }");
    }

    #[test]
    fn enums_are_seen_whole_wherever_they_are() {
        let kind = "Kind = Plain | Rushed(u8) | Split { parts: Vec<u32> }";
        assert_eq!(shape_of::<Kind>().text, kind);
        assert_eq!(shape_of::<Option<Kind>>().text, format!("Option<Kind>; {kind}"));
        assert_eq!(shape_of::<Vec<(u8, Option<Kind>)>>().text, format!("Vec<(u8, Option<Kind>)>; {kind}"));
    }

    #[test]
    fn what_cannot_be_traced_is_known_by_its_name() {
        let text = shape_of::<NonZeroU64>().text;
        assert!(text.contains("NonZero") && text.ends_with("(not traced)"), "{text}");
    }

    #[test]
    fn flat_types_keep_nothing_on_the_heap() {
        assert!(shape_of::<(u64, Option<f32>)>().flat);
        assert!(!shape_of::<String>().flat);
        assert!(!shape_of::<Order>().flat);
        assert!(!shape_of::<Tree>().flat);
        assert!(!shape_of::<NonZeroU64>().flat);
    }
}
