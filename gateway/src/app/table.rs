//! Columns on a terminal, where a Chinese character is two cells wide.

/// Rows of cells, aligned; a cell may have several lines.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    /// The lines, two cells between columns, no blanks at the end.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).flat_map(|cell| cell.lines());
            cells.map(width).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let mut lines = Vec::new();
        for row in &self.rows {
            let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(0);
            for n in 0..height {
                let mut line = String::new();
                for (cell, widest) in row.iter().zip(&widths) {
                    let part = cell.lines().nth(n).unwrap_or("");
                    line.push_str(part);
                    line.push_str(&" ".repeat(widest - width(part) + 2));
                }
                lines.push(line.trim_end().to_owned());
            }
        }
        lines
    }
}

/// Without what could move the cursor: words from sensors and files end up here.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// Terminal cells of one line: East Asian wide and fullwidth characters two (Unicode Annex 11), combining ones none.
pub fn width(line: &str) -> usize {
    line.chars()
        .map(|c| match u32::from(c) {
            0x0300..=0x036F | 0x200B..=0x200F | 0xFE00..=0xFE0F => 0,
            0x1100..=0x115F
            | 0x2E80..=0x303E
            | 0x3041..=0xA4CF
            | 0xAC00..=0xD7A3
            | 0xF900..=0xFAFF
            | 0xFE30..=0xFE6F
            | 0xFF01..=0xFF60
            | 0xFFE0..=0xFFE6
            | 0x1F300..=0x1F64F
            | 0x1F900..=0x1F9FF
            | 0x20000..=0x3FFFD => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_whatever_the_script() {
        let mut table = Table::default();
        table.row(["级别".to_owned(), "message".to_owned()]);
        table.row(["red".to_owned(), "3号楼\nBuilding 3".to_owned()]);
        table.row(["黄色 yellow".to_owned(), "\u{1b}[2Jx".to_owned()]);
        assert_eq!(
            table.lines(),
            ["级别         message", "red          3号楼", "             Building 3", "黄色 yellow   [2Jx",]
        );
    }

    #[test]
    fn a_character_is_as_wide_as_a_terminal_shows_it() {
        for (text, cells) in
            [("", 0), ("abc", 3), ("可燃气体", 8), ("（%LEL）", 8), ("e\u{301}", 1), ("温度 71.2 °C", 12)]
        {
            assert_eq!(width(text), cells, "{text}");
        }
    }
}
