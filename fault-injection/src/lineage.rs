//! A lineage of victims: what they are told can change from one to the next.

use std::ops::{Deref, DerefMut};

use millpond_testkit::chaos::{self, Launch};

use crate::victim::{Setup, VICTIM};

/// The processes of one application, with what they are told.
#[derive(Debug)]
pub struct Lineage {
    setup: Setup,
    inner: chaos::Lineage,
}

impl Lineage {
    /// Nothing started yet. The processes' words go to a file beside the application's directory.
    pub fn new(setup: Setup) -> Self {
        let inner = chaos::Lineage::new(&setup, &setup.application, &setup.directory);
        Lineage { setup, inner }
    }

    /// See [`chaos::Lineage::patience`].
    #[must_use]
    pub fn patience(mut self, patience: std::time::Duration) -> Self {
        self.inner = self.inner.patience(patience);
        self
    }

    /// Without what they are told.
    pub fn into_inner(self) -> chaos::Lineage {
        self.inner
    }

    /// What the processes are told.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// As [`setup`](Lineage::setup), to be changed before the next start.
    pub fn setup_mut(&mut self) -> SetupMut<'_> {
        SetupMut(self)
    }
}

impl Deref for Lineage {
    type Target = chaos::Lineage;

    fn deref(&self) -> &chaos::Lineage {
        &self.inner
    }
}

impl DerefMut for Lineage {
    fn deref_mut(&mut self) -> &mut chaos::Lineage {
        &mut self.inner
    }
}

/// The [`Setup`] of a lineage; dropped, it counts for the next start.
pub struct SetupMut<'a>(&'a mut Lineage);

impl Deref for SetupMut<'_> {
    type Target = Setup;

    fn deref(&self) -> &Setup {
        &self.0.setup
    }
}

impl DerefMut for SetupMut<'_> {
    fn deref_mut(&mut self) -> &mut Setup {
        &mut self.0.setup
    }
}

impl Drop for SetupMut<'_> {
    fn drop(&mut self) {
        let told = self.0.setup.to_json();
        self.0.inner.launch_mut().set_env(VICTIM, told);
    }
}

impl From<&Setup> for Launch {
    /// This very program, started again as a victim: its `main`, or its test named `victim`, has to call
    /// [`victim::run_if_asked`](crate::victim::run_if_asked).
    fn from(setup: &Setup) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        // Read by a test program only, whose own `main` would run every test.
        let mut command = std::process::Command::new(program);
        command.args(["--exact", "victim", "--nocapture"]).env(VICTIM, setup.to_json());
        Launch::from(command)
    }
}
