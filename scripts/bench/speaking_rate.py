# ruff: noqa: RUF001 - the sentences are in their own alphabets
"""Measure how many characters per second espeak-ng speaks at rate 1.0, by language: prints the table of rates.py."""

from __future__ import annotations

import unicodedata

from dubbing.engines import espeak
from dubbing.engines.base import SpeakItem

SENTENCES = {
    "en": "Good morning, and welcome back to the kitchen. | Today we are going to bake bread with only four things. | "
    "First, mix the flour and the water, and let it rest. | Do you know why we wait for half an hour? | "
    "Because the dough becomes soft, and it is easier to work with.",
    "es": "Buenos días y bienvenidos de nuevo a la cocina. | Hoy vamos a hacer pan con solo cuatro ingredientes. | "
    "Primero, mezcla la harina con el agua y déjala reposar. | ¿Sabes por qué esperamos media hora? | "
    "Porque la masa se vuelve blanda y es más fácil de trabajar.",
    "ca": "Bon dia i benvinguts de nou a la cuina. | Avui farem pa amb només quatre ingredients. | "
    "Primer, barreja la farina amb l'aigua i deixa-la reposar. | Saps per què esperem mitja hora? | "
    "Perquè la massa es torna tova i és més fàcil de treballar.",
    "fr": "Bonjour et bienvenue à nouveau dans la cuisine. | Aujourd'hui nous faisons du pain avec quatre choses. | "
    "D'abord, mélangez la farine et l'eau, et laissez reposer. | Savez-vous pourquoi on attend une demi-heure ? | "
    "Parce que la pâte devient souple et plus facile à travailler.",
    "pt": "Bom dia e bem-vindos de volta à cozinha. | Hoje vamos fazer pão com apenas quatro ingredientes. | "
    "Primeiro, misture a farinha com a água e deixe descansar. | Sabe por que esperamos meia hora? | "
    "Porque a massa fica macia e é mais fácil de trabalhar.",
    "it": "Buongiorno e bentornati in cucina. | Oggi faremo il pane con soli quattro ingredienti. | "
    "Prima mescolate la farina con l'acqua e lasciate riposare. | Sapete perché aspettiamo mezz'ora? | "
    "Perché l'impasto diventa morbido ed è più facile da lavorare.",
    "de": "Guten Morgen und willkommen zurück in der Küche. | Heute backen wir Brot mit nur vier Zutaten. | "
    "Zuerst mischen wir das Mehl mit dem Wasser und lassen es ruhen. | Wissen Sie, warum wir eine halbe Stunde warten?"
    " | "
    "Weil der Teig dann weich wird und sich leichter kneten lässt.",
    "nl": "Goedemorgen en welkom terug in de keuken. | Vandaag bakken we brood met maar vier dingen. | "
    "Meng eerst de bloem met het water en laat het rusten. | Weet je waarom we een half uur wachten? | "
    "Omdat het deeg dan zacht wordt en makkelijker te kneden is.",
    "ro": "Bună dimineața și bine ați revenit în bucătărie. | Astăzi vom face pâine cu doar patru ingrediente. | "
    "Mai întâi amestecați făina cu apa și lăsați-o să stea. | Știți de ce așteptăm o jumătate de oră?",
    "pl": "Dzień dobry i witamy ponownie w kuchni. | Dzisiaj upieczemy chleb z czterech składników. | "
    "Najpierw wymieszaj mąkę z wodą i odstaw na chwilę. | Czy wiesz, dlaczego czekamy pół godziny?",
    "ru": "Доброе утро и добро пожаловать на кухню. | Сегодня мы испечём хлеб всего из четырёх продуктов. | "
    "Сначала смешайте муку с водой и дайте тесту постоять. | Знаете, почему мы ждём полчаса? | "
    "Потому что тесто становится мягким и с ним легче работать.",
    "ar": "صباح الخير ومرحبا بكم في المطبخ. | اليوم سوف نصنع الخبز من أربعة أشياء فقط. | "
    "أولا نخلط الدقيق مع الماء ونتركه قليلا. | هل تعرف لماذا ننتظر نصف ساعة؟",
    "hi": "नमस्ते और रसोई में आपका फिर से स्वागत है। | आज हम केवल चार चीज़ों से रोटी बनाएँगे। | "
    "पहले आटे को पानी में मिलाइए और थोड़ी देर छोड़ दीजिए। | क्या आप जानते हैं कि हम आधा घंटा क्यों रुकते हैं?",
    "ja": "おはようございます。だいどころへようこそ。 | きょうはよっつのざいりょうでパンをつくります。 | "
    "まず、こなとみずをまぜて、すこしやすませます。 | どうしてさんじゅっぷんまつのでしょうか。",
    "zh": "早上好，欢迎回到厨房。 | 今天我们用四种材料做面包。 | "
    "首先把面粉和水混合，然后放一会儿。 | 你知道为什么要等半个小时吗？",
    "ko": "안녕하세요, 주방에 다시 오신 것을 환영합니다. | 오늘은 네 가지 재료로 빵을 만들겠습니다. | "
    "먼저 밀가루와 물을 섞고 잠시 두세요. | 왜 삼십 분을 기다리는지 아세요?",
    "tr": "Günaydın ve mutfağa tekrar hoş geldiniz. | Bugün sadece dört malzemeyle ekmek yapacağız. | "
    "Önce unu suyla karıştırın ve dinlenmeye bırakın. | Neden yarım saat beklediğimizi biliyor musunuz?",
}


def measure(language: str) -> float:
    """Characters per second over the language's sentences."""
    sentences = [unicodedata.normalize("NFC", s.strip()) for s in SENTENCES[language].split("|")]
    engine = espeak.SPEAK.load({})
    voice = espeak.voices(language)[0].id
    speeches = engine.run([SpeakItem(sentence, language, voice) for sentence in sentences])
    engine.close()
    seconds: float = sum(speech.audio.size for speech in speeches) / espeak.SAMPLE_RATE
    return sum(map(len, sentences)) / seconds


if __name__ == "__main__":
    for tag in sorted(SENTENCES):
        print(f'    "{tag}": {measure(tag):.1f},')
