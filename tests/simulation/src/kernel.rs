// SPDX-License-Identifier: MIT
//! A node's kernel, as far as the product meets it: pages of files that are kept until they are dropped,
//! each locked while a request that concerns it is under way, and a size that is believed until asked
//! for. Names are not kept, as with the mounts' timeouts of zero.

use std::collections::BTreeMap;

use pvfs::attr::{Attr, SetAttr};
use pvfs::error::FsError;
use pvfs::proto::mgr::Access;
use pvfs::runtime::sync::mpsc::channel;
use pvfs::runtime::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use pvfs::runtime::thread;
use pvfs_fuse::fs::{Caller, Kernel, OpenHow, Pvfs, ReadRequest, ReadSink, WriteRequest};

/// A page, bytes.
const PAGE: u64 = 4096;

/// Who asks: root, without a thread of the host to look at.
pub const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 0,
};

/// A page. It is locked where its content is on its way.
#[derive(Debug, Default)]
struct Page {
    locked: bool,
    /// `None` where it is not up to date.
    content: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct FileState {
    size: u64,
    /// Which version it was when its size or pages changed last: older answers are ignored.
    version: u64,
    pages: BTreeMap<u64, Page>,
    /// The inode's own lock, of writers.
    taken: bool,
}

#[derive(Debug, Default)]
struct State {
    /// The last version of any file.
    version: u64,
    files: BTreeMap<u64, FileState>,
}

impl State {
    fn file(&mut self, node: u64) -> &mut FileState {
        self.files.entry(node).or_default()
    }

    /// Answers about the file that are under way are too old from now on.
    fn touch(&mut self, node: u64) -> &mut FileState {
        self.version += 1;
        let version = self.version;
        let file = self.file(node);
        file.version = version;
        file
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A simulated kernel's page cache.
#[derive(Clone, Debug, Default)]
pub struct PageCache(Arc<Shared>);

/// Takes what a read brings.
struct Sink<'a>(&'a mut Vec<u8>);

impl ReadSink for Sink<'_> {
    fn data(self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// A file as a program has it open.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile {
    /// FUSE handle.
    pub handle: u64,
    /// Inode.
    pub node: u64,
    /// The kernel keeps no pages for it.
    pub direct: bool,
    /// `O_APPEND`.
    pub append: bool,
}

type Files<'a> = MutexGuard<'a, State>;

impl PageCache {
    fn files(&self) -> Files<'_> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, files: Files<'a>) -> Files<'a> {
        let waited = self.0.changed.wait(files);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a page's lock; gives its content.
    fn lock_page(&self, node: u64, page: u64) -> Option<Vec<u8>> {
        let mut files = self.files();
        loop {
            let entry = files.file(node).pages.entry(page).or_default();
            if !entry.locked {
                entry.locked = true;
                return entry.content.clone();
            }
            files = self.wait(files);
        }
    }

    /// Gives it back, with what the page has now.
    fn unlock_page(&self, node: u64, page: u64, content: Option<Vec<u8>>) {
        let mut files = self.files();
        let pages = &mut files.file(node).pages;
        match content {
            Some(content) => {
                let content = Some(content);
                pages.insert(
                    page,
                    Page {
                        locked: false,
                        content,
                    },
                );
            }
            None => drop(pages.remove(&page)),
        }
        drop(files);
        self.0.changed.notify_all();
    }

    fn lock_inode(&self, node: u64) -> InodeGuard<'_> {
        let mut files = self.files();
        while files.file(node).taken {
            files = self.wait(files);
        }
        files.file(node).taken = true;
        InodeGuard { cache: self, node }
    }

    /// Asks for the attributes, and believes their size unless pages were dropped meanwhile.
    ///
    /// # Errors
    ///
    /// The mount's.
    pub fn getattr(&self, fs: &Arc<Pvfs>, node: u64) -> Result<Attr, FsError> {
        self.ask(fs, node, false)
    }

    /// The answer may come before the request is done with.
    fn ask(&self, fs: &Arc<Pvfs>, node: u64, size_only: bool) -> Result<Attr, FsError> {
        let version = self.files().version;
        let (answer, answered) = channel();
        let cache = self.clone();
        let reply = move |outcome: Result<Attr, FsError>| {
            if let Ok(attr) = &outcome {
                cache.learn(attr, version);
            }
            // Whoever asked may have been killed.
            let _ = answer.send(outcome);
        };
        let question = fs.question(node, size_only, Box::new(reply));
        let fs = Arc::clone(fs);
        thread::spawn(move || ROOT.serve(|| fs.answer(question)));
        answered.recv().unwrap_or(Err(FsError::Io))
    }

    fn learn(&self, attr: &Attr, version: u64) {
        let mut files = self.files();
        let file = files.file(attr.inode.0);
        let believed = file.version <= version;
        if believed {
            file.size = attr.size;
        }
        let (node, size) = (attr.inode, attr.size);
        tracing::debug!("kernel: inode {node} has {size} bytes, believed: {believed}");
    }

    /// Looks a name up; `None` where there is none.
    ///
    /// # Errors
    ///
    /// The mount's.
    pub fn lookup(
        &self,
        fs: &Arc<Pvfs>,
        (parent, name): (u64, &[u8]),
    ) -> Result<Option<Attr>, FsError> {
        let version = self.files().version;
        match ROOT.serve(|| fs.lookup(ROOT, parent, name)) {
            Ok(attr) => {
                self.learn(&attr, version);
                Ok(Some(attr))
            }
            Err(FsError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// open(2) of a name with `O_RDWR`; `None` where it is absent, or exists against the caller's
    /// will.
    ///
    /// # Errors
    ///
    /// The mount's.
    pub fn open(
        &self,
        fs: &Arc<Pvfs>,
        place: (u64, &[u8]),
        (make, exclusive, append): (bool, bool, bool),
    ) -> Result<Option<OpenFile>, FsError> {
        let access = Access {
            read: true,
            write: true,
        };
        let how = OpenHow {
            access,
            truncate: false,
            append,
        };
        let version = self.files().version;
        let opened = match self.lookup(fs, place)? {
            Some(_) if exclusive => return Ok(None),
            Some(attr) => ROOT.serve(|| fs.open(ROOT, attr.inode.0, how)),
            None if make => {
                let modes = (0o644, 0o022);
                ROOT.serve(|| fs.create(ROOT, place, modes, how, exclusive))
            }
            None => return Ok(None),
        };
        match opened {
            Ok(opened) => {
                self.learn(&opened.attr, version);
                Ok(Some(OpenFile {
                    handle: opened.handle,
                    node: opened.attr.inode.0,
                    direct: opened.direct,
                    append,
                }))
            }
            Err(FsError::Exists) if exclusive => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// pread(2).
    ///
    /// # Errors
    ///
    /// The mount's.
    pub fn read(
        &self,
        fs: &Arc<Pvfs>,
        file: &OpenFile,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, FsError> {
        if file.direct {
            return read_request(fs, file, offset, length, false);
        }
        let end = offset + length as u64;
        if end > self.files().file(file.node).size {
            self.ask(fs, file.node, true)?;
        }
        let mut bytes = Vec::new();
        let mut at = offset;
        loop {
            let size = self.files().file(file.node).size;
            let stop = end.min(size);
            if at >= stop {
                return Ok(bytes);
            }
            let page = at / PAGE;
            let content = self.page(fs, file, page)?;
            // The kernel looks at the size once it has the page: its read may have told a new end.
            let stop = end.min(self.files().file(file.node).size);
            if at >= stop {
                return Ok(bytes);
            }
            let from = (at % PAGE) as usize;
            let to = (stop.min((page + 1) * PAGE) - page * PAGE) as usize;
            bytes.extend_from_slice(content.get(from..to).unwrap_or_default());
            at = page * PAGE + to as u64;
        }
    }

    /// A page's content, read where it is not kept.
    fn page(&self, fs: &Arc<Pvfs>, file: &OpenFile, page: u64) -> Result<Vec<u8>, FsError> {
        // The first request is readahead, of which nobody hears that it failed.
        self.page_once(fs, file, page)
            .or_else(|_| self.page_once(fs, file, page))
    }

    fn page_once(&self, fs: &Arc<Pvfs>, file: &OpenFile, page: u64) -> Result<Vec<u8>, FsError> {
        let node = file.node;
        if let Some(content) = self.lock_page(node, page) {
            self.unlock_page(node, page, Some(content.clone()));
            return Ok(content);
        }
        let version = self.files().version;
        match read_request(fs, file, page * PAGE, PAGE as usize, true) {
            Ok(mut content) => {
                let filled = content.len() as u64;
                tracing::debug!("kernel: page {page} of inode {node} has {filled} bytes");
                content.resize(PAGE as usize, 0);
                if filled < PAGE {
                    // A short read says where the file ends.
                    let mut files = self.files();
                    let state = files.file(node);
                    if state.version <= version {
                        state.size = state.size.min(page * PAGE + filled);
                    }
                }
                self.unlock_page(node, page, Some(content.clone()));
                Ok(content)
            }
            Err(error) => {
                self.unlock_page(node, page, None);
                Err(error)
            }
        }
    }

    /// pwrite(2), or write(2) to a file that is open for appending.
    ///
    /// # Errors
    ///
    /// The mount's.
    pub fn write(
        &self,
        fs: &Arc<Pvfs>,
        file: &OpenFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), FsError> {
        let node = file.node;
        let size = self.files().file(node).size;
        let extends = file.append || offset + bytes.len() as u64 > size;
        // Writes past the cache that stay within the file do not exclude each other.
        let _inode = (!file.direct || extends).then(|| self.lock_inode(node));
        let offset = match file.append {
            true => self.files().file(node).size,
            false => offset,
        };
        if file.direct {
            write_request(fs, file, offset, bytes, false)?;
            let mut files = self.files();
            let state = files.touch(node);
            state.size = state.size.max(offset + bytes.len() as u64);
            return Ok(());
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let page = at / PAGE;
            let from = (at % PAGE) as usize;
            let count = (bytes.len() - done).min(PAGE as usize - from);
            let part = bytes.get(done..done + count).unwrap_or_default();
            let mut content = self.lock_page(node, page);
            if count == PAGE as usize {
                content = Some(vec![0; PAGE as usize]);
            }
            if let Some(place) = content.as_mut().and_then(|c| c.get_mut(from..from + count)) {
                place.copy_from_slice(part);
            }
            let outcome = write_request(fs, file, at, part, true);
            let kept = content.filter(|_| outcome.is_ok());
            if outcome.is_ok() {
                let mut files = self.files();
                let state = files.touch(node);
                state.size = state.size.max(at + count as u64);
            }
            self.unlock_page(node, page, kept);
            outcome?;
            done += count;
        }
        Ok(())
    }

    /// ftruncate(2).
    ///
    /// # Errors
    ///
    /// The mount's.
    pub fn truncate(&self, fs: &Arc<Pvfs>, file: &OpenFile, size: u64) -> Result<(), FsError> {
        let _inode = self.lock_inode(file.node);
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let attr = ROOT.serve(|| fs.setattr(ROOT, file.node, set, Some(file.handle)))?;
        {
            let mut files = self.files();
            files.touch(file.node).size = attr.size;
        }
        self.drop_pages(file.node, 0, None);
        Ok(())
    }
}

/// An inode's own lock.
struct InodeGuard<'a> {
    cache: &'a PageCache,
    node: u64,
}

impl Drop for InodeGuard<'_> {
    fn drop(&mut self) {
        self.cache.files().file(self.node).taken = false;
        self.cache.0.changed.notify_all();
    }
}

impl Kernel for PageCache {
    fn drop_pages(&self, inode: u64, offset: u64, length: Option<u64>) {
        let first = offset / PAGE;
        let last = length.map_or(u64::MAX, |length| (offset + length).div_ceil(PAGE));
        tracing::debug!("kernel: drops pages {first}..{last} of inode {inode}");
        let mut files = self.files();
        files.touch(inode);
        loop {
            let pages = &mut files.file(inode).pages;
            pages.retain(|page, state| state.locked || *page < first || *page >= last);
            if !pages.range(first..last).any(|(_, state)| state.locked) {
                return;
            }
            files = self.wait(files);
        }
    }
}

fn read_request(
    fs: &Arc<Pvfs>,
    file: &OpenFile,
    offset: u64,
    length: usize,
    fills_pages: bool,
) -> Result<Vec<u8>, FsError> {
    let request = ReadRequest {
        handle: file.handle,
        offset,
        length,
        fills_pages,
    };
    let mut bytes = Vec::new();
    ROOT.serve(|| fs.read(&request, Sink(&mut bytes)))
        .map_err(|(_, error)| error)?;
    Ok(bytes)
}

fn write_request(
    fs: &Arc<Pvfs>,
    file: &OpenFile,
    offset: u64,
    bytes: &[u8],
    from_pages: bool,
) -> Result<(), FsError> {
    let request = WriteRequest {
        handle: file.handle,
        offset,
        bytes,
        drops_privileges: false,
        from_pages,
        write_back: false,
        append: file.append,
    };
    // A write that ends early ends with an error when the kernel sends the rest.
    match ROOT.serve(|| fs.write(ROOT, &request))? {
        stored if stored < bytes.len() => Err(FsError::NoSpace),
        _ => Ok(()),
    }
}
