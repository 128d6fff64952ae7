//! `make chaos`: kills at random, as many as asked.
fn main() {
    millpond_fault_injection::victim::run_if_asked();
}
