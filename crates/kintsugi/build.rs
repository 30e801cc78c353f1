//! Links the binary at a fixed place: every pod has a monitor process of this binary, and an executable that need not
//! be relocated shares all its pages between them.

fn main() {
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
}
