//! The calls of a file system, made on what the disk holds.

use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use super::super::{Access, FileHandle, FileSystem};
use super::world::{NameChange, World};
use super::{Call, Effect, FaultFileSystem};

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}
impl FaultFileSystem {
    fn handle(&self, world: &World, inode: u64, access: Access) -> Arc<dyn FileHandle> {
        Arc::new(Handle { world: self.clone(), inode, life: world.life, access })
    }
}

impl FileSystem for FaultFileSystem {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::CreateDirectory)?;
        world.directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut world = self.lock();
        world.enter_whole(Call::List)?;
        if !world.directories.contains(directory) {
            return Err(not_found());
        }
        let inside = world.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let mut world = self.lock();
        world.enter_whole(Call::Create)?;
        let inode = match world.names.get(path) {
            Some(&inode) => inode,
            None => {
                let inode = world.next_inode;
                world.next_inode += 1;
                world.names.insert(path.to_owned(), inode);
                world.unsynced.push(NameChange::Link(path.to_owned(), inode));
                inode
            }
        };
        let file = world.files.entry(inode).or_default();
        let length = file.bytes.len();
        file.touch(0, length);
        file.bytes.clear();
        Ok(self.handle(&world, inode, Access::ReadWrite))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn FileHandle>> {
        let mut world = self.lock();
        world.enter_whole(Call::Open)?;
        let inode = *world.names.get(path).ok_or_else(not_found)?;
        Ok(self.handle(&world, inode, access))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::Rename)?;
        let inode = world.names.remove(from).ok_or_else(not_found)?;
        world.names.insert(to.to_owned(), inode);
        world.unsynced.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::Remove)?;
        world.names.remove(path).ok_or_else(not_found)?;
        world.unsynced.push(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.enter_whole(Call::SyncDirectory)?;
        let (inside, rest) = std::mem::take(&mut world.unsynced).into_iter().partition(|change: &NameChange| {
            let (NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(path, _)) = change;
            path.parent() == Some(directory)
        });
        world.unsynced = rest;
        let inside: Vec<NameChange> = inside;
        for change in inside {
            world.survive(change);
        }
        Ok(())
    }
}

struct Handle {
    world: FaultFileSystem,
    inode: u64,
    life: u64,
    access: Access,
}

impl Handle {
    fn enter(&self, call: Call) -> io::Result<(MutexGuard<'_, World>, Option<Effect>)> {
        let mut world = self.world.lock();
        if world.life != self.life {
            return Err(io::Error::other("this handle belongs to a process that died"));
        }
        if !world.files.contains_key(&self.inode) {
            return Err(not_found());
        }
        let effect = world.enter(call)?;
        Ok((world, effect))
    }

    fn writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

impl FileHandle for Handle {
    fn length(&self) -> io::Result<u64> {
        let (world, effect) = self.enter(Call::Length)?;
        match effect {
            Some(Effect::Fail(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(world.files[&self.inode].bytes.len() as u64),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (world, effect) = self.enter(Call::Read)?;
        let most = match effect {
            Some(Effect::Fail(errno) | Effect::Torn(_, errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Effect::Short(bytes)) => bytes.max(1),
            None => usize::MAX,
        };
        let bytes = &world.files[&self.inode].bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let length = buffer.len().min(bytes.len() - start).min(most);
        buffer[..length].copy_from_slice(&bytes[start..start + length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.writable()?;
        let (mut world, effect) = self.enter(Call::Write)?;
        let (length, errno) = match effect {
            Some(Effect::Fail(errno)) => (0, Some(errno)),
            Some(Effect::Torn(length, errno)) => (length.min(bytes.len()), Some(errno)),
            Some(Effect::Short(length)) => (length.clamp(1, bytes.len().max(1)).min(bytes.len()), None),
            None => (bytes.len(), None),
        };
        let from = usize::try_from(offset).expect("files in memory are small");
        let to = from + length;
        world.check_room(self.inode, to as u64)?;
        let file = world.files.get_mut(&self.inode).expect("seen by enter");
        if length > 0 {
            let grown_from = file.bytes.len();
            if to > grown_from {
                file.bytes.resize(to, 0);
                file.touch(grown_from, to);
            }
            file.bytes[from..to].copy_from_slice(&bytes[..length]);
            file.touch(from, to);
        }
        match errno {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(length),
        }
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.writable()?;
        let (mut world, effect) = self.enter(Call::Allocate)?;
        if let Some(Effect::Fail(errno) | Effect::Torn(_, errno)) = effect {
            return Err(io::Error::from_raw_os_error(errno));
        }
        world.check_room(self.inode, offset + length)?;
        let file = world.files.get_mut(&self.inode).expect("seen by enter");
        let (from, to) = (file.bytes.len(), usize::try_from(offset + length).expect("files in memory are small"));
        if to > from {
            file.bytes.resize(to, 0);
            file.touch(from, to);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut world, effect) = self.enter(Call::SyncData)?;
        let file = world.files.get_mut(&self.inode).expect("seen by enter");
        match effect {
            None | Some(Effect::Short(_)) => {
                file.sync();
                Ok(())
            }
            Some(Effect::Fail(errno) | Effect::Torn(_, errno)) => {
                file.dirty.clear();
                Err(io::Error::from_raw_os_error(errno))
            }
        }
    }
}
