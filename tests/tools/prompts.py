"""Prompts of many kinds: what one kind gets right by luck another does not."""

CHAT = [
    "What is the capital of Peru, and what is it known for?",
    "Write a haiku about a soldering iron.",
    "My boiler shows error E04 and 1.2 bar. What should I check first?",
    "List three uses of a Raspberry Pi in a greenhouse.",
    "Explain MQTT to a ten year old in two sentences.",
    "¿Cuál es la diferencia entre el quechua y el aimara?",
]

RAW = [
    "Once upon a time, in a village high in the Andes,",
    "The Chasquis were the messengers of the Inca empire. They",
    "The three laws of thermodynamics are",
    "Q: How many legs do seven spiders have?\nA:",
    "Subject: Meeting on Thursday\n\nDear Ms Huamán,\n\n",
    " ",
    "a",
]

CODE = [
    "def fibonacci(n):\n    ",
    "fn main() {\n    let values = vec![1, 2, 3];\n    for value in &values {\n",
    "SELECT name, COUNT(*) FROM sensors WHERE",
    '{"temperature": 21.5, "humidity": 40, "unit": "',
    "<html>\n<head>\n<title>Sensor readings</title>\n",
]

LANGUAGES = [
    "La montaña más alta del mundo es",
    "Der schnellste Weg von Hamburg nach München ist",
    "日本で一番高い山は",
    "Столица России —",
    "Η Αθήνα είναι",
    "👋🏽 Hello! 🌍🦙 The llama says:",
]

DIGITS = [
    "1, 1, 2, 3, 5, 8, 13, 21,",
    "3.14159265358979323846264338327950288419716939937510",
    "2024-01-01 00:00:00 INFO 192.168.0.17 port 1883\n2024-01-01 00:00:05 INFO",
]

_PARAGRAPH = (
    "The station stands at 3,812 metres above the sea, beside the lake. Every ten minutes it "
    "measures temperature, humidity, air pressure, wind and the level of the water, and sends "
    "the readings over a radio link to the village, where a small computer keeps them. In the "
    "rainy season the link fails for hours; the station then keeps its readings in a ring "
    "buffer and sends them, oldest first, when the link is back. "
)

LONG = "".join(f"Report {number}. {_PARAGRAPH}" for number in range(1, 8)) + "In summary,"
"""Some 600 tokens: several chunks of prefill."""


def all_prompts() -> list[dict]:
    """Every prompt as a line of `chaski generate --batch`."""
    chats = [{"chat": text} for text in CHAT]
    texts = [{"prompt": text} for text in [*RAW, *CODE, *LANGUAGES, *DIGITS, LONG]]
    return chats + texts
