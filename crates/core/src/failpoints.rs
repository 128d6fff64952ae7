//! Arms failpoints from the environment, so that a test can kill or break a process it has started.
//!
//! `MILLPOND_FAILPOINTS="before-commit=kill@3;break-plan-not-logged=return"`: the process kills itself with SIGKILL when
//! it comes to `before-commit` for the third time; `return` makes a point break what it names (a negative control, in debug
//! builds only), `sleep(20)` holds it up for 20 ms each time. A program that wants to be tested so calls [`arm_from_env`] first of all, and is built with the feature
//! `failpoints`. Without the feature no point is in the code.

use crate::error::{Error, Result};

/// The variable that [`arm_from_env`] reads.
pub const VARIABLE: &str = "MILLPOND_FAILPOINTS";

/// Arms what the variable `MILLPOND_FAILPOINTS` names; nothing if it is not set.
///
/// # Errors
/// [`Configuration`](crate::ErrorKind::Configuration): a text that cannot be read, or any text in a program built without the feature `failpoints`.
pub fn arm_from_env() -> Result<()> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => arm(&text),
        _ => Ok(()),
    }
}

#[cfg(not(feature = "failpoints"))]
fn arm(_: &str) -> Result<()> {
    Err(Error::configuration(format!("{VARIABLE} is set, but this program was built without the feature `failpoints`")))
}

#[cfg(feature = "failpoints")]
fn arm(text: &str) -> Result<()> {
    let wrong = |item: &str| {
        Error::configuration(format!(
            "{VARIABLE}: cannot read {item:?}, it must be name=kill@N, name=return or name=sleep(MS)"
        ))
    };
    for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, action) = item.split_once('=').ok_or_else(|| wrong(item))?;
        match action.split_once('@') {
            Some(("kill", hit)) => {
                let hit = hit.parse().ok().filter(|&hit| hit > 0).ok_or_else(|| wrong(item))?;
                fail::cfg_callback(name, kill_at(hit)).map_err(|_| wrong(item))?;
            }
            None if action == "return" || action.starts_with("sleep(") => {
                fail::cfg(name, action).map_err(|_| wrong(item))?
            }
            _ => return Err(wrong(item)),
        }
    }
    Ok(())
}

/// What kills this process when it is called for the `hit`th time, counted from 1.
#[cfg(feature = "failpoints")]
fn kill_at(hit: u64) -> impl Fn() + Send + Sync + 'static {
    use std::sync::atomic::{AtomicU64, Ordering};
    let calls = AtomicU64::new(0);
    move || {
        if calls.fetch_add(1, Ordering::Relaxed) + 1 == hit {
            // Fails for no signal that exists; nothing after it runs.
            let _ = signal_hook::low_level::raise(signal_hook::consts::SIGKILL);
        }
    }
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_refused_and_named() {
        for text in ["before-commit", "before-commit=kill", "before-commit=kill@0", "before-commit=kill@x", "a=sleep"] {
            let said = arm(text).map_or_else(|error| error.to_string(), |()| "armed".into());
            assert!(said.contains(text) && said.contains(VARIABLE), "{said}");
        }
    }

    #[test]
    fn a_point_armed_with_return_takes_its_way_out() {
        assert!(arm(" test-point-of-this-module=return ;").is_ok());
        assert!(fail::eval("test-point-of-this-module", |_| ()).is_some());
    }
}
