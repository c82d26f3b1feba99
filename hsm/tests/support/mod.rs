//! A fresh SoftHSM token store for each test.
//!
//! SoftHSM reads the place of its tokens from `SOFTHSM2_CONF`, once per process. Setting a variable of the running
//! process is unsafe, so each test runs its body in a child: the same test binary, asked for this one test, with the
//! variable set.

use std::any::type_name;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use casemate_hsm::{HsmConfig, Pin, PinSource, TokenDescription, TokenSelector, WrapMode, init_keys, init_token};

pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &str = "correct horse";
pub(crate) const SO_PIN: &str = "battery staple";

const STORE: &str = "CASEMATE_TEST_STORE";
const FAULTS: &str = "CASEMATE_FAULTS";

/// Which module the test talks to.
#[derive(Clone, Copy)]
pub(crate) enum Module {
    SoftHsm,
    /// SoftHSM behind `faulty_module.c`.
    Faulty,
}

/// The folder of one test: tokens, the PIN file and switched-on faults.
pub(crate) struct Store {
    folder: PathBuf,
    module: PathBuf,
}

/// Runs a test's body in a child process with an empty token store of its own.
pub(crate) fn on_fresh_store<F>(module: Module, body: F)
where
    F: AsyncFnOnce(Store),
{
    match std::env::var_os(STORE) {
        Some(folder) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(body(Store::at(PathBuf::from(folder), module)));
        }
        None => run_in_child(&test_name::<F>(), module),
    }
}

/// The path of the test that the closure stands in: `contract::opening::name::{{closure}}` without both ends.
fn test_name<F>() -> String {
    let parts: Vec<_> = type_name::<F>().split("::").collect();
    parts[1..].iter().take_while(|part| !part.starts_with('{')).copied().collect::<Vec<_>>().join("::")
}

fn run_in_child(test: &str, module: Module) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().to_owned(), module);
    store.create(module);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("SOFTHSM2_CONF", store.softhsm_conf())
        .env(STORE, folder.path())
        .env(FAULTS, store.folder.join("faults"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{test} failed in its own process:\n{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Store {
    fn at(folder: PathBuf, module: Module) -> Self {
        let module = match module {
            Module::SoftHsm => PathBuf::from(SOFTHSM),
            Module::Faulty => folder.join("faulty.so"),
        };
        Self { folder, module }
    }

    fn create(&self, module: Module) {
        fs::create_dir(self.tokens()).unwrap();
        fs::create_dir(self.folder.join("faults")).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            self.tokens().display()
        );
        fs::write(self.softhsm_conf(), conf).unwrap();
        self.write_pin(PIN);
        if let Module::Faulty = module {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/faulty_module.c");
            let compiled = Command::new("cc")
                .args(["-shared", "-fPIC", "-w", "-O1", "-o"])
                .arg(&self.module)
                .arg(format!("-DREAL_MODULE=\"{SOFTHSM}\""))
                .arg(source)
                .arg("-ldl")
                .status()
                .unwrap();
            assert!(compiled.success());
        }
    }

    fn softhsm_conf(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
    }

    /// The folder in which SoftHSM keeps its tokens.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn module(&self) -> &Path {
        &self.module
    }

    /// Puts a PIN into the PIN file.
    pub(crate) fn write_pin(&self, pin: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.pin_file();
        fs::write(&path, pin).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    pub(crate) fn config(&self, label: &str) -> HsmConfig {
        HsmConfig {
            module: self.module.clone(),
            token: TokenSelector::Label(label.into()),
            pin: PinSource::file(self.pin_file()),
            wrap: WrapMode::Auto,
            threads: 2,
            queue: 8,
            timeout: Duration::from_secs(5),
        }
    }

    /// A token without keys.
    pub(crate) fn token(&self, label: &str) -> TokenDescription {
        let (so_pin, pin) = (Pin::new(SO_PIN).unwrap(), Pin::new(PIN).unwrap());
        init_token(&self.module, label, &so_pin, &pin).unwrap()
    }

    /// A token with all keys.
    pub(crate) fn provisioned(&self, label: &str) -> HsmConfig {
        self.token(label);
        let config = self.config(label);
        init_keys(&config).unwrap();
        config
    }

    /// Switches a fault of `faulty_module.c` on.
    pub(crate) fn break_it(&self, fault: &str) {
        fs::write(self.folder.join("faults").join(fault), "").unwrap();
    }

    /// Whether a fault is switched on; those that strike once switch themselves off.
    pub(crate) fn is_broken(&self, fault: &str) -> bool {
        self.folder.join("faults").join(fault).exists()
    }

    /// Switches a fault off again.
    pub(crate) fn mend_it(&self, fault: &str) {
        fs::remove_file(self.folder.join("faults").join(fault)).unwrap();
    }

    /// How many times C_Login was called on `faulty_module.c`.
    pub(crate) fn logins(&self) -> usize {
        fs::read(self.folder.join("faults/logins")).map_or(0, |dots| dots.len())
    }
}

/// Waits until a condition holds; fails after ten seconds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not happen within ten seconds: {what}");
}
