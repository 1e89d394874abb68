//! [`StopStrings`]: texts that end a generation, found in text that comes in pieces.

/// Holds back what may be the beginning of a stop string.
///
/// ```
/// use anygpu::generate::StopStrings;
/// let mut stops = StopStrings::new(["END".to_owned()]);
/// assert_eq!(stops.push("a E"), ("a ".to_owned(), false));
/// assert_eq!(stops.push("Nd E"), ("ENd ".to_owned(), false));
/// assert_eq!(stops.push("ND of it"), (String::new(), true));
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Stops at the first of these; empty ones are none.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Takes a piece of text; returns what can be given out, and whether a stop string, which is not, follows it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held += piece;
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        // The longest end of the text that a stop string begins with.
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(|&at| begins(at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, once no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text and verdict of `pieces`.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopStrings::new(stops.iter().map(|stop| stop.to_string()));
        let mut text = String::new();
        for piece in pieces {
            let (out, stopped) = filter.push(piece);
            text += &out;
            if stopped {
                return (text, true);
            }
        }
        (text + &filter.finish(), false)
    }

    #[test]
    fn finds_stops_across_pieces_and_gives_out_all_else() {
        let cases: &[(&[&str], &[&str], &str, bool)] = &[
            (&[], &["all ", "of it"], "all of it", false),
            (&[""], &["all"], "all", false),
            (&["\n\n"], &["a\n", "b\n", "\nc"], "a\nb", true),
            (&["aab"], &["a", "a", "a", "b", "c"], "a", true),
            (&["aab"], &["aaa"], "aaa", false),
            (&["b", "ab"], &["xab"], "x", true),
            (&["é!"], &["caf", "é", "?"], "café?", false),
            (&["é!"], &["caf", "é", "!"], "caf", true),
        ];
        for (stops, pieces, text, stopped) in cases {
            assert_eq!(run(stops, pieces), (text.to_string(), *stopped), "{stops:?} {pieces:?}");
        }
    }
}
