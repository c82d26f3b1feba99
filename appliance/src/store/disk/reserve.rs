//! Space that is held ready so that a full disk can still take refusals and outcomes.
//!
//! The reserve is a file of [`SIZE`] bytes beside the database. While it is there acts may begin. When the disk runs full
//! it is given up: from then on nothing new begins, and its space goes to the end of the write-ahead log, before anybody
//! else on this disk takes it. There what has happened or was refused is written. The reserve is made again once there is
//! room for it and some more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::RngCore;
use rustix::fs::{FallocateFlags, StatVfsMountFlags, fallocate, statvfs};

use super::trouble::{Reason, Trouble};

/// Bytes that are held: some hundreds of refusals and outcomes.
pub(super) const SIZE: u64 = 8 * 1024 * 1024;
/// With less than this free, in bytes, the disk counts as full: a group of writes must still fit in.
pub(super) const LOW: u64 = 2 * 1024 * 1024;
/// What must be free, in bytes, before the reserve is made again: it shall not be given up at once.
const ROOM: u64 = SIZE + 2 * LOW;

/// The reserve of one data folder. What it knows stands on the disk alone.
pub(super) struct Reserve {
    folder: PathBuf,
    path: PathBuf,
    wal: PathBuf,
}

impl Reserve {
    /// Of the folder in which a database writes to the log `wal`.
    pub(super) fn of(folder: &Path, wal: &Path) -> Self {
        Self { folder: folder.to_owned(), path: folder.join("reserve"), wal: wal.to_owned() }
    }

    /// Gives the reserve up if the disk is full. `Ok` if it is in hand, so that acts may begin.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        let free = self.free()?;
        if self.held() && free >= LOW {
            return Ok(());
        }
        if self.held() {
            self.give_up();
        }
        let (free, needed, folder) = (free / 1024, ROOM / 1024, self.folder.display());
        let why = if free < needed {
            format!("the disk of {folder} is full: {free} KiB are free, {needed} KiB are needed")
        } else {
            format!("the disk of {folder} was full; its reserve is being made again")
        };
        Err(Trouble::new(Reason::DiskFull, why))
    }

    /// Makes the reserve again if there is room. May take as long as the disk takes to write it.
    pub(super) fn restore(&self) -> Result<(), Trouble> {
        if self.held() || self.free()? < ROOM {
            return Ok(());
        }
        let doing = || format!("hold {} KiB ready in {}", SIZE / 1024, self.folder.display());
        self.make().map_err(|e| Trouble::of_io(&doing(), &e))
    }

    fn held(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.len() >= SIZE)
    }

    /// Frees the space and gives it to the write-ahead log. Without the file there is none to give.
    pub(super) fn give_up(&self) {
        match fs::remove_file(&self.path) {
            Ok(()) => self.hand_over(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(event = "reserve_not_given_up", %error, "the disk is full and its reserve cannot be used");
            }
        }
    }

    /// Reserves what has been freed behind the end of the write-ahead log, in ever smaller parts if somebody was faster.
    /// SQLite holds no lock on that file, so that it may be opened and closed here.
    fn hand_over(&self) {
        // Some file systems can use freed space only once the removal itself is on disk.
        drop(self.sync_folder());
        let Ok(wal) = OpenOptions::new().write(true).open(&self.wal) else { return };
        let mut end = wal.metadata().map_or(0, |found| found.len());
        let wanted = end.saturating_add(SIZE);
        let mut part = SIZE;
        while part >= 64 * 1024 && end < wanted {
            match fallocate(&wal, FallocateFlags::KEEP_SIZE, end, part) {
                Ok(()) => end = end.saturating_add(part),
                Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => part /= 2,
                // The space is free for everybody, and for the log too.
                Err(_) => return,
            }
        }
    }

    /// Says what a small write beside the database runs into, when SQLite says no more than that writing failed.
    pub(super) fn probe(&self) -> Result<(), Trouble> {
        let path = self.folder.join("probe");
        let written = open(&path).and_then(|mut file| file.write_all(&[0; 4096]).and_then(|()| file.sync_all()));
        drop(fs::remove_file(&path));
        written.map_err(|e| Trouble::of_io(&format!("write to {}", self.folder.display()), &e))
    }

    /// Free bytes, if the file system takes writes.
    fn free(&self) -> Result<u64, Trouble> {
        let found = statvfs(&self.folder).map_err(|e| {
            let doing = format!("ask for the free space of {}", self.folder.display());
            Trouble::of_io(&doing, &e.into())
        })?;
        // A file system without a size (a tmpfs of size 0, some network mounts) does not run full by these figures.
        let free = if found.f_blocks == 0 { u64::MAX } else { found.f_bavail.saturating_mul(found.f_frsize) };
        if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let why = format!("the file system of {} is read-only", self.folder.display());
            return Err(Trouble::new(Reason::ReadOnly, why));
        }
        Ok(free)
    }

    /// Takes more than is kept, so that a quota, which no figure above shows, leaves some room too.
    fn make(&self) -> io::Result<()> {
        let made = open(&self.path).and_then(|mut file| {
            allocate(&mut file, ROOM)?;
            file.set_len(SIZE)?;
            file.sync_all()
        });
        if made.is_err() {
            drop(fs::remove_file(&self.path));
        }
        made.and_then(|()| self.sync_folder())
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)
}

/// Gives the file `size` bytes that are really there. File systems that cannot promise space are written full, with
/// bytes that no compression makes smaller.
fn allocate(file: &mut File, size: u64) -> io::Result<()> {
    match fallocate(&*file, FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        done => return done.map_err(io::Error::from),
    }
    let mut block = vec![0; 64 * 1024];
    let mut written = 0;
    while written < size {
        rand::thread_rng().fill_bytes(&mut block);
        file.write_all(&block)?;
        written += 64 * 1024;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_is_made_of_real_blocks_and_made_again_after_it_was_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(folder.path(), &folder.path().join("wal"));
        let path = folder.path().join("reserve");
        for _ in 0..2 {
            reserve.restore().unwrap();
            reserve.check().unwrap();
            let found = fs::metadata(&path).unwrap();
            assert_eq!(found.len(), SIZE);
            assert!(found.blocks() * 512 >= SIZE, "{} blocks", found.blocks());
            assert_eq!(found.mode() & 0o777, 0o600);
            reserve.give_up();
            assert!(!path.exists());
            assert_eq!(reserve.check().unwrap_err().reason, Reason::DiskFull, "no act without it");
        }
    }

    #[test]
    fn what_is_given_up_goes_behind_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path().join("wal");
        fs::write(&wal, [7; 5000]).unwrap();
        let reserve = Reserve::of(folder.path(), &wal);
        for _ in 0..3 {
            reserve.restore().unwrap();
            reserve.give_up();
            let found = fs::metadata(&wal).unwrap();
            assert_eq!(found.len(), 5000, "its bytes are the same");
            let held = found.blocks() * 512;
            assert!((SIZE..SIZE + 64 * 1024).contains(&held), "{held} bytes are held, however often");
        }
        assert_eq!(fs::read(&wal).unwrap(), [7; 5000]);
    }

    #[test]
    fn one_that_was_cut_short_is_made_whole() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(folder.path(), &folder.path().join("wal"));
        fs::write(folder.path().join("reserve"), [0; 100]).unwrap();
        reserve.restore().unwrap();
        assert_eq!(fs::metadata(folder.path().join("reserve")).unwrap().len(), SIZE);
    }

    #[test]
    fn a_folder_that_is_gone_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(&folder.path().join("gone"), &folder.path().join("gone/wal"));
        assert_eq!(reserve.check().unwrap_err().reason, Reason::IoError);
        assert_eq!(reserve.probe().unwrap_err().reason, Reason::IoError);
    }
}
