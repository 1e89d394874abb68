"""The training text and the test texts of make.py. All of it is written for this repository."""

CORPUS_LINES = """The quick brown fox jumps over the lazy dog, and the dog does not mind at all.
A language model reads tokens and writes tokens; a tokenizer stands between them and the text.
They're sure that we've got what you'd want, but I'll say it's not theirs, and I'm right.
In 2024 there were 365 or 366 days; 1024 is 2 to the 10th, and 3.14159 is close to pi.
Once upon a time there was a small machine that wanted to speak. It spoke one word at a time.
THE SAME TEXT IN CAPITALS: THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.
fn main() { let x = vec![1, 2, 3]; for i in 0..x.len() { println!("{}", x[i]); } }
    def area(self, width: float, height: float) -> float:
        return width * height  # four and eight spaces
\tif (a == b && c != d) { return a->next; }
<html><body class="page"><p>Hello, world!</p></body></html>
El zorro marrón salta sobre el perro perezoso; ¿quién lo diría? ¡Mañana será otro día!
Le renard brun saute par-dessus le chien paresseux. Où est la bibliothèque, s'il vous plaît ?
Der schnelle braune Fuchs springt über den faulen Hund. Straße, Größe, Übung, Ärger.
Быстрая коричневая лиса прыгает через ленивую собаку. Это русский текст о языке.
Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί. Αυτό είναι ελληνικό κείμενο.
الثعلب البني السريع يقفز فوق الكلب الكسول. هذا نص باللغة العربية.
השועל החום המהיר קופץ מעל הכלב העצלן. זה טקסט בעברית.
तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। यह हिन्दी में एक पाठ है।
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ นี่คือข้อความภาษาไทย
敏捷的棕色狐狸跳过了懒狗。这是一个中文句子，用来训练分词器。
すばやい茶色の狐はのろまな犬を飛び越える。これは日本語の文章です。
빠른 갈색 여우가 게으른 개를 뛰어넘는다. 이것은 한국어 문장입니다.
Emoji: 😀 😀 👍 👍🏽 ❤️ 🎉 🚀 👨‍👩‍👧‍👦 🇩🇪 🇯🇵
"""
CORPUS = CORPUS_LINES * 4

TEXTS = [
    "",
    " ",
    "  ",
    "     ",
    "\n",
    "\n\n\n",
    "\t",
    "a",
    "Hello",
    "Hello, world!",
    " Hello, world! ",
    "  two  leading and  double   spaces   ",
    "trailing newline\n",
    "trailing spaces and newline   \n\n  ",
    "line one\nline two\r\nline three\rline four",
    "tabs\tbetween\t\twords\t",
    "no\u00a0break\u00a0\u00a0space, thin\u2009space, ideographic\u3000space, next\u0085line",
    "\u2028line\u2029paragraph\u200bzero\ufeffbom",
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX'S DOG ISN'T LAZY, IT'LL DO. I'M, YOU'VE, WE'RE, HE'D",
    "they're it's don't we'll I've he'd I'm 'twas 'Tis 's",
    "long s: '\u017f and \u212aelvin",
    "1", "12", "123", "1234", "1234567890",
    "3.14159265358979323846264338327950288419716939937510",
    "1,234,567.89 and 1 000 000 and 2024-07-26T12:34:56Z",
    "\u0661\u0662\u0663\u0664\u0665 \u0967\u0968\u0969 \uff11\uff12\uff13 \u00b2\u00b3 \u00bd \u2167 \u3007",
    "¿Qué tal? ¡Mañana será otro día! Ñandú, pingüino.",
    "Straße Größe Übermut ÄÖÜ äöü ẞ",
    "Быстрая коричневая лиса. Ёж, объезд, щука.",
    "Η γρήγορη αλεπού πηδάει. Ὅμηρος, ἄνθρωπος.",
    "الثعلب البني السريع يقفز. اَلسَّلَامُ عَلَيْكُمْ ١٢٣",
    "השועל החום קופץ. שָׁלוֹם עֲלֵיכֶם",
    "तेज़ भूरी लोमड़ी कूदती है। क्षत्रिय ज्ञान",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดด น้ำ ที่นี่",
    "敏捷的棕色狐狸跳过了懒狗。漢字、繁體。𠮷野家",
    "すばやい茶色の狐。ひらがなカタカナﾊﾝｶｸ",
    "빠른 갈색 여우가 개를 뛰어넘는다. 한글",
    "한글 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "Tiếng Việt: Người Việt Nam nói tiếng Việt. Hà Nội",
    "አማርኛ ქართული Հայերեն বাংলা தமிழ் ລາວ မြန်မာ ខ្មែរ",
    "😀", "👍🏽 ❤️ ☺ 🎉🎉🎉",
    "family: 👨‍👩‍👧‍👦, couple: 👩🏽‍❤️‍💋‍👨🏻, pirate: 🏴‍☠️",
    "flags: 🇩🇪🇯🇵🇺🇳 🏴󠁧󠁢󠁳󠁣󠁴󠁿 and keycaps 1️⃣#️⃣",
    "e\u0301 vs \u00e9, n\u0303 vs \u00f1, A\u030a vs \u00c5 vs \u212b, q\u0323\u0307",
    "Z\u0351\u036b\u0343\u0369\u036a\u0302 a\u0300\u0301\u0302\u0303\u0304 lgo",
    "ﬁ ﬂ ﬀ ½ ™ ® © № ℃ Ⅷ",
    "fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i * i).collect();\n    println!(\"{x:?}\");\n}\n",
    "def f(a, b):\n\treturn a**b  # power\n\n\nclass A:\n    pass\n",
    "if (a == b && c != d || !e) { p->next = *q++; x <<= 2; }",
    "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%'; -- done",
    "<p class=\"x\">&lt;b&gt; &amp; &#39;</p><!-- c --></s>",
    "https://example.com/a_b-c?d=e&f=%20g#h user@example.org C:\\dir\\file.txt",
    "....... ,,,, !!!! ???? ---- ____ ==== #### **** ~~~~ ``` $$$ ^^^ +++",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbb    cccc\n\n\n\ndddd",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "Zyxwvq qvwxyz Zyxwvqq",
    "\u2581already\u2581marked \u2581 \u0120byte\u010alevel",
    "<0x41><0xE2><0x96><0x81> and <unk> and <pad>",
    "<s>start</s> <s> end </s>",
    "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|><|eot_id|> x<|im_end|>y <|im_end|> z",
    "<|im_start <|im_end|><|im_end| im_end|>",
    "call <tool>weather</tool> \u2192\u2192 now\u2192\u2192\u2192",
    "\ufffd replacement \ufffe \uffff noncharacters \U0010ffff \ue000 private",
    "control \x01\x02\x1b[0m \x7f and nul \x00 end",
    "mixed Русский with English и 中文 and العربية together",
    "The temperature is -12.5\u00b0C (9.5\u00b0F) at 50% humidity \u2014 \u201cquoted\u201d \u2018text\u2019\u2026",
]
