//! File systems of a test's own, to be filled, made read-only and broken. They need the right to mount.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system at a folder; it is taken away when this is dropped.
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// A tmpfs of so many MiB over a data folder whose files move in.
    pub fn tmpfs(at: &Path, mib: u32) -> Self {
        Self::over(at, || {
            let options = format!("size={mib}m,mode=0700");
            mount(["-t", "tmpfs", "-o", &options, "tmpfs"].map(OsStr::new).into_iter().chain([at.as_os_str()]));
        })
    }

    /// An ext4 file system in a new file of so many MiB, over a data folder whose files move in.
    pub fn ext4(at: &Path, image: &Path, mib: u64) -> Self {
        File::create(image).unwrap().set_len(mib * 1024 * 1024).unwrap();
        run("mkfs.ext4", [OsStr::new("-q"), OsStr::new("-F"), image.as_os_str()]);
        Self::over(at, || mount([OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), at.as_os_str()]))
    }

    /// What [`Mount::ext4`] made, again, as after a reboot.
    pub fn ext4_again(at: &Path, image: &Path) -> Self {
        mount([OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), at.as_os_str()]);
        Self { at: at.to_owned() }
    }

    fn over(at: &Path, mount: impl FnOnce()) -> Self {
        let files = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> = files.filter(|path| !path.ends_with("reserve")).collect();
        let contents: Vec<(PathBuf, Vec<u8>)> =
            files.iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        mount();
        let mounted = Self { at: at.to_owned() };
        fs::set_permissions(at, Permissions::from_mode(0o700)).unwrap();
        for (path, bytes) in contents {
            let mut file = File::create(path).unwrap();
            file.write_all(&bytes).unwrap();
            // As it has long been on disk.
            file.sync_all().unwrap();
        }
        mounted
    }

    /// Mounts it again with other options.
    pub fn remount(&self, options: &str) {
        mount([OsStr::new("-o"), OsStr::new(&format!("remount,{options}")), self.at.as_os_str()]);
    }

    /// Writes until nothing more goes in, again and again until the space stays used up.
    pub fn fill(&self) -> Filler {
        let filler = Filler { path: self.at.join("filler") };
        filler.go_on();
        filler
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon may still have files in it.
        let done = Command::new("umount").arg("-l").arg(&self.at).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.at.display());
        }
    }
}

/// The file that fills a disk; the space is free again when this is dropped.
pub struct Filler {
    path: PathBuf,
}

impl Filler {
    /// Takes whatever has become free.
    pub fn go_on(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
        for block in [vec![0xa5; 64 * 1024], vec![0xa5; 512]] {
            let full = loop {
                if let Err(error) = file.write_all(&block) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

fn mount<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) {
    run("mount", arguments);
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) {
    let done =
        Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program} cannot be run: {e}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} failed; tests of disk trouble need root and the right to mount: {said}");
}
