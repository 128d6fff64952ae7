//! The rules of this crate that tests break on purpose, to see that they would notice: the names that begin with `break-` in
//! `millpond_core::failpoints::NAMES`. Behind the feature `negative-controls`; nothing of it is in the code without.

#[cfg(all(feature = "negative-controls", not(debug_assertions)))]
compile_error!(
    "the feature `negative-controls` breaks the program on purpose: it builds with debug assertions only, for tests"
);

/// Whether this process was told to break a rule.
#[cfg(feature = "negative-controls")]
pub(crate) fn broken(rule: &str) -> bool {
    fail::eval(rule, |_| ()).is_some()
}

/// Never.
#[cfg(not(feature = "negative-controls"))]
#[inline(always)]
pub(crate) const fn broken(_rule: &str) -> bool {
    false
}
