//! One turn: a decode step of all that run, then chunks of newcomers' prompts.

use super::super::pool::{Pool, Table};
use super::super::request::Seated;
use super::{Core, Read, publish};
use crate::error::Result;
use crate::kernels::cache::PAGE;

impl Core {
    /// Submits a turn; false where there is nothing to do.
    pub(super) fn turn(&mut self) -> Result<bool> {
        let before = self.flight.len();
        self.decode()?;
        self.prefill()?;
        let submitted = self.flight.len() > before;
        if let Some(last) = self.flight.back_mut().filter(|_| submitted) {
            last.ends_turn = true;
        }
        Ok(submitted)
    }

    fn read(&mut self, tokens: Vec<(usize, u64, u64)>) -> Result<()> {
        let bytes = Box::pin(self.slots.read_state()?.bytes());
        self.flight.push_back(Read { bytes, tokens, ends_turn: false });
        Ok(())
    }

    fn active(&self) -> impl Iterator<Item = &Seated> {
        self.seated.values().filter(|seated| seated.active)
    }

    /// A decode step of all active sequences.
    fn decode(&mut self) -> Result<()> {
        self.make_room()?;
        self.compact()?;
        let Some(longest) = self.active().map(|seated| seated.fed).max() else { return Ok(()) };
        let end = self.active().map(|seated| seated.slot + 1).max().unwrap_or(0);
        let size = self.size_for(end);
        self.slots.step(size, longest)?;
        self.counts.steps += 1;
        self.counts.step_slots += size;
        self.read(self.active().map(|seated| (seated.slot, seated.request.id, seated.stay)).collect())?;
        for seated in self.seated.values_mut().filter(|seated| seated.active) {
            seated.fed += 1;
            seated.coming += 1;
            if seated.fed == self.slots.context_length() || seated.request.is_complete_with(seated.coming) {
                seated.active = false;
                self.slots.deactivate(seated.slot)?;
            }
        }
        Ok(())
    }

    /// The smallest plan that serves slots up to `end`.
    fn size_for(&self, end: usize) -> usize {
        self.sizes.iter().copied().find(|&size| size >= end).unwrap_or(self.options.slots)
    }

    /// Sees that every active sequence has the page that its next token goes to, the oldest first. Where there is none, the
    /// youngest request gives up all of its pages.
    fn make_room(&mut self) -> Result<()> {
        for id in self.active().map(|seated| seated.request.id).collect::<Vec<_>>() {
            while let Some(seated) = self.seated.get_mut(&id) {
                let page = seated.fed / PAGE;
                if page < seated.table.pages().len() {
                    break;
                }
                if self.pool.grow(&mut seated.table) {
                    self.slots.write_pages(seated.slot, page, &seated.table.pages()[page..])?;
                } else if let Some(&youngest) = self.seated.keys().next_back() {
                    self.preempt(youngest);
                }
            }
        }
        Ok(())
    }

    /// Takes a request's slot and pages; it is the next of those that wait.
    fn preempt(&mut self, id: u64) {
        if let Some(request) = self.unseat(id) {
            self.counts.preempted += 1;
            self.wait_again(request);
        }
    }

    /// Moves sequences to lower slots where a smaller plan then serves them all.
    fn compact(&mut self) -> Result<()> {
        let wanted = self.size_for(self.active().count());
        while let Some(seated) = self.active().max_by_key(|seated| seated.slot).filter(|s| s.slot >= wanted) {
            let (id, from) = (seated.request.id, seated.slot);
            let Some(to) = self.seats[..wanted].iter().position(Option::is_none) else { break };
            self.slots.relocate(from, to)?;
            self.seats.swap(from, to);
            if let Some(seated) = self.seated.get_mut(&id) {
                seated.slot = to;
                self.slots.write_pages(to, 0, seated.table.pages())?;
                self.slots.write_rules(to, &seated.request.options.sampling)?;
            }
        }
        Ok(())
    }

    /// Chunks of newcomers' prompts, together about one chunk's worth of tokens.
    fn prefill(&mut self) -> Result<()> {
        let mut left = self.slots.chunk();
        let mut chosen = Vec::new();
        let mut submitted = false;
        while self.newcomer.is_some() || self.admit()? {
            let Some(seated) = self.newcomer.and_then(|id| self.seated.get_mut(&id)) else { break };
            // Where chunks end depends on the request alone.
            let Some(&count) = self.slots.chunks(seated.prefill - seated.fed).first() else { break };
            if submitted && count > left {
                break;
            }
            left = left.saturating_sub(count);
            submitted = true;
            let end = seated.fed + count;
            let last = end == seated.prefill;
            let Seated { slot, fed, .. } = *seated;
            let tokens = &seated.request.tokens;
            if last {
                self.slots.write_sampling(slot, &seated.request.options.sampling, &tokens[..end])?;
                // Sampling moves the position on to that of the token which it chooses.
                self.slots.write_slot(slot, 0, end - 1, true)?;
            }
            self.slots.submit_chunk(slot, fed, &tokens[fed..end], usize::from(last), last)?;
            self.counts.prefilled += count;
            seated.fed = end;
            let shareable = self.options.shareable(end, self.slots.chunk());
            publish(&mut self.pool, &self.slots, seated, shareable)?;
            if last {
                seated.coming = 1;
                chosen.push((slot, seated.request.id, seated.stay));
                seated.active = end < self.slots.context_length() && !seated.request.is_complete_with(1);
                if !seated.active {
                    self.slots.deactivate(slot)?;
                }
                self.newcomer = None;
            }
        }
        // Of a chunk that chooses nothing, too: its end is what the next turns wait for.
        if submitted { self.read(chosen) } else { Ok(()) }
    }

    /// Gives the first that waits a slot and the pages of its prompt, if there are any.
    fn admit(&mut self) -> Result<bool> {
        let Some(slot) = self.seats.iter().position(Option::is_none) else { return Ok(false) };
        let Some(request) = self.waiting.front_mut() else { return Ok(false) };
        if self.options.deterministic {
            // What decode steps computed comes of decode steps again.
            request.seen = request.prompt;
        }
        let prefill = request.seen;
        // The last token is fed even if it is there: its logits are wanted.
        let mut table = self.pool.find(&request.tokens[..prefill - 1], self.options.unit(self.slots.chunk()));
        let shared = table.pages().len();
        let missing = prefill.div_ceil(PAGE) - shared;
        // Each of those that run may want another page soon, and would take the newcomer's.
        if self.pool.available() < missing + self.seated.len() || !grow(&mut self.pool, &mut table, missing) {
            self.pool.release(table);
            return Ok(false);
        }
        let Some(request) = self.waiting.pop_front() else { return Ok(false) };
        self.slots.write_pages(slot, 0, table.pages())?;
        self.counts.shared += shared * PAGE;
        self.stays += 1;
        let id = request.id;
        self.seats[slot] = Some(id);
        self.newcomer = Some(id);
        let fed = shared * PAGE;
        let seated = Seated { request, slot, stay: self.stays, table, prefill, fed, coming: 0, active: false };
        self.seated.insert(id, seated);
        Ok(true)
    }
}

fn grow(pool: &mut Pool, table: &mut Table, pages: usize) -> bool {
    (0..pages).all(|_| pool.grow(table))
}
