//! What is forgotten does not compile, and the error says what to write.
//!
//! The expected output is the compiler's own. After a new compiler: `TRYBUILD=overwrite cargo test -p annals-domain
//! --test compile`, and read the difference.

#[test]
fn what_is_forgotten_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile/*.rs");
}
