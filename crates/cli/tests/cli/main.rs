//! The `millpond` command as a user meets it: run as a process, judged by what it prints and how it ends.

mod arguments;
mod damage;
mod demo;
mod inspect;
mod strangers;
mod support;
