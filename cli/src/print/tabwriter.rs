//! Columns aligned as Go's `text/tabwriter` aligns them: a column is a run of lines that have the cell, closed by the first that has not.
//!
//! Owns text only. Used where upstream does (describe, config); tables of objects are in `table`.

/// Settings of one writer.
#[derive(Clone, Copy, Debug)]
pub struct TabWriter {
    /// Least width of a cell, padding included.
    pub min_width: usize,
    /// Spaces added to the longest cell.
    pub padding: usize,
}

/// What `kubectl describe` uses.
pub const DESCRIBE: TabWriter = TabWriter { min_width: 0, padding: 2 };
/// What tables of `kubectl` use.
pub const TABLE: TabWriter = TabWriter { min_width: 6, padding: 3 };

impl TabWriter {
    /// Aligns tab-separated text; each cell but a line's last ends in a tab.
    pub fn align(self, text: &str) -> String {
        let ends_with_newline = text.ends_with('\n');
        let body = text.strip_suffix('\n').unwrap_or(text);
        let lines: Vec<Vec<&str>> = body.split('\n').map(|line| line.split('\t').collect()).collect();
        let mut out = String::with_capacity(text.len() * 2);
        let mut widths = Vec::new();
        self.format(&lines, 0, lines.len(), &mut widths, &mut out);
        if !ends_with_newline {
            out.pop();
        }
        out
    }

    /// Writes lines `from..to`, of which every one has the columns already in `widths`.
    fn format(self, lines: &[Vec<&str>], from: usize, to: usize, widths: &mut Vec<usize>, out: &mut String) {
        let column = widths.len();
        let mut line = from;
        let mut written = from;
        while line < to {
            if column + 1 >= lines[line].len() {
                line += 1;
                continue;
            }
            // A block of consecutive lines that have this column starts here.
            self.write(lines, written, line, widths, out);
            let mut end = line;
            let mut width = self.min_width;
            while end < to && column + 1 < lines[end].len() {
                let size = lines[end][column].chars().count();
                width = width.max(size + self.padding);
                end += 1;
            }
            widths.push(width);
            self.format(lines, line, end, widths, out);
            widths.pop();
            line = end;
            written = end;
        }
        self.write(lines, written, to, widths, out);
    }

    fn write(self, lines: &[Vec<&str>], from: usize, to: usize, widths: &[usize], out: &mut String) {
        for cells in &lines[from..to] {
            for (index, cell) in cells.iter().enumerate() {
                out.push_str(cell);
                if let Some(width) = widths.get(index).filter(|_| index + 1 < cells.len()) {
                    (cell.chars().count()..*width).for_each(|_| out.push(' '));
                }
            }
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DESCRIBE, TABLE};

    #[test]
    fn aligns_runs_of_lines_that_share_a_column() {
        assert_eq!(DESCRIBE.align("Name:\tx\nNamespace:\tdefault\n"), "Name:       x\nNamespace:  default\n");
        assert_eq!(DESCRIBE.align("A:\tx\nplain\nLonger:\ty\n"), "A:  x\nplain\nLonger:  y\n");
        assert_eq!(TABLE.align("NAME\tAGE\na\t5m\n"), "NAME   AGE\na      5m\n");
        assert_eq!(DESCRIBE.align("a\tb\tc\nlong\tlonger\td\n"), "a     b       c\nlong  longer  d\n");
    }
}
