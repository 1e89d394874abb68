//! [`Pool`]: which pages of the cache are whose. Sequences that begin with the same tokens share the pages that these fill:
//! such a block is known by its tokens and by the block before it, so that one look-up a block walks a prompt. A page that
//! nobody uses any more keeps its block until the page is needed, the longest unused first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::kernels::cache::PAGE;

/// The tokens of a full page, and the number of the block before it (0: none).
#[derive(Debug, PartialEq, Eq, Hash)]
struct Block {
    before: u64,
    tokens: Vec<u32>,
}

/// A block that a page holds.
#[derive(Clone, Debug)]
struct Held {
    block: Arc<Block>,
    /// Never used again, so that what follows an evicted block is not found behind another one.
    number: u64,
}

#[derive(Clone, Debug, Default)]
struct Page {
    /// Tables that have it.
    users: usize,
    held: Option<Held>,
    /// When its last user left.
    left: u64,
}

/// The pages of a sequence in the order of positions. It has to go back to its pool.
#[derive(Debug, Default)]
pub(super) struct Table {
    pages: Vec<u32>,
    /// Pages from the first on whose blocks the pool knows.
    known: usize,
    /// The last known block's number.
    last: u64,
}

impl Table {
    /// The pages.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Pages from the first on that others can find.
    pub fn known(&self) -> usize {
        self.known
    }
}

/// All pages of a cache.
#[derive(Debug)]
pub(super) struct Pool {
    pages: Vec<Page>,
    /// Pages without users and blocks.
    free: Vec<u32>,
    /// Pages without users that hold blocks, by the time when they were left.
    idle: BTreeMap<u64, u32>,
    blocks: HashMap<Arc<Block>, u32>,
    clock: u64,
}

impl Pool {
    /// A pool of free pages.
    pub fn new(pages: usize) -> Self {
        Self {
            pages: vec![Page::default(); pages],
            free: (0..pages as u32).rev().collect(),
            idle: BTreeMap::new(),
            blocks: HashMap::new(),
            clock: 0,
        }
    }

    /// All pages.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Pages that can be had: free ones and idle ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages without users whose blocks can still be found.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn take(&mut self, page: u32) {
        let state = &mut self.pages[page as usize];
        if state.users == 0 {
            self.idle.remove(&state.left);
        }
        state.users += 1;
    }

    fn give(&mut self, page: u32) {
        let now = self.tick();
        let state = &mut self.pages[page as usize];
        state.users -= 1;
        if state.users > 0 {
            return;
        }
        match state.held {
            Some(_) => {
                state.left = now;
                self.idle.insert(now, page);
            }
            None => self.free.push(page),
        }
    }

    /// A table of the pages that hold the blocks `tokens` begin with: a multiple of `unit` of them.
    pub fn find(&mut self, tokens: &[u32], unit: usize) -> Table {
        let mut found = Vec::new();
        let mut before = 0;
        for tokens in tokens.chunks_exact(PAGE) {
            let block = Block { before, tokens: tokens.to_vec() };
            let Some(&page) = self.blocks.get(&block) else { break };
            before = self.pages[page as usize].held.as_ref().map_or(0, |held| held.number);
            found.push((page, before));
        }
        found.truncate(found.len() / unit.max(1) * unit.max(1));
        found.iter().for_each(|&(page, _)| self.take(page));
        let last = found.last().map_or(0, |&(_, number)| number);
        Table { known: found.len(), last, pages: found.into_iter().map(|(page, _)| page).collect() }
    }

    /// Adds a page to a table; false where there is none to be had.
    pub fn grow(&mut self, table: &mut Table) -> bool {
        let page = self.free.pop().or_else(|| {
            let (_, page) = self.idle.pop_first()?;
            if let Some(held) = self.pages[page as usize].held.take() {
                self.blocks.remove(&held.block);
            }
            Some(page)
        });
        let Some(page) = page else { return false };
        self.pages[page as usize].users = 1;
        table.pages.push(page);
        true
    }

    /// Lets others find a table's next page, which holds `tokens`, a whole block. Where a page holds that block already, the
    /// table gets it in place of its own, and its number is returned.
    pub fn publish(&mut self, table: &mut Table, tokens: &[u32]) -> Option<u32> {
        let index = table.known;
        let own = *table.pages.get(index).filter(|_| tokens.len() == PAGE)?;
        let block = Arc::new(Block { before: table.last, tokens: tokens.to_vec() });
        table.known += 1;
        if let Some(&page) = self.blocks.get(&block) {
            table.last = self.pages[page as usize].held.as_ref().map_or(0, |held| held.number);
            self.take(page);
            self.give(own);
            table.pages[index] = page;
            return Some(page);
        }
        let number = self.tick();
        table.last = number;
        self.blocks.insert(block.clone(), own);
        self.pages[own as usize].held = Some(Held { block, number });
        None
    }

    /// Takes a table's pages back. The last goes first, so that a block is never evicted before those that follow it.
    pub fn release(&mut self, table: Table) {
        table.pages.into_iter().rev().for_each(|page| self.give(page));
    }

    /// Forgets all blocks: what pages hold is not to be relied on any more.
    pub fn forget(&mut self) {
        self.blocks.clear();
        self.pages.iter_mut().for_each(|page| page.held = None);
        self.free.extend(std::mem::take(&mut self.idle).into_values());
    }
}

#[cfg(test)]
mod tests;
