//! Turns `wrapper.h` into `$OUT_DIR/kamailio.rs`, for the feature `module`. Nothing of Kamailio is needed
//! on the build machine. Without that feature there is nothing to make.

use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "loom")]
    println!("cargo::rustc-cfg=loom");
    #[cfg(feature = "module")]
    if let Err(message) = module::build() {
        println!("cargo::error={message}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What only the module needs: the C file, the declarations, and how its shared object is linked.
#[cfg(feature = "module")]
mod module {
    use std::env;
    use std::panic;
    use std::path::PathBuf;

    pub fn build() -> Result<(), String> {
        println!("cargo::rerun-if-changed=wrapper.h");
        println!("cargo::rerun-if-changed=kamailio-headers");
        println!("cargo::rerun-if-changed=src/kamailio/collect.c");
        // Every module exports `exports`, `module_version` and so on, and Kamailio loads some (app_lua,
        // app_python3) into the global scope: without this our own code would write into theirs.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
        cc::Build::new()
            .file("src/kamailio/collect.c")
            .warnings_into_errors(true)
            .compile("apiban_collect");
        generate()
    }

    fn generate() -> Result<(), String> {
        // bindgen loads libclang when it runs and panics where there is none. clang_version() loads it
        // and does nothing else, so a panic here has that one cause.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let loaded = panic::catch_unwind(bindgen::clang_version);
        panic::set_hook(hook);
        if loaded.is_err() {
            return Err("libclang is missing: apt-get install libclang1".into());
        }

        let oldest = bindgen::RustTarget::stable(85, 0).map_err(|error| error.to_string())?;
        let bindings = bindgen::Builder::default()
            .header("wrapper.h")
            // The rust-version of Cargo.toml, not the newest that bindgen knows.
            .rust_target(oldest)
            // Only what our own headers declare, never a builtin of the compiler.
            .allowlist_file(".*kamailio-headers/.*")
            // tests/abi compares the layout with Kamailio's own headers, which says more than a
            // comparison with ours.
            .layout_tests(false)
            .derive_debug(false)
            .derive_default(false)
            .generate_comments(false)
            .generate()
            .map_err(|error| format!("kamailio-headers/ cannot be read: {error}"))?;

        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
        bindings
            .write_to_file(out.join("kamailio.rs"))
            .map_err(|error| format!("kamailio.rs cannot be written: {error}"))
    }
}
