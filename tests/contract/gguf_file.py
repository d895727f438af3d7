"""Where things lie in a GGUF file (neuron stores are ones), so that tests can damage them on purpose."""
import struct

# Type number: struct format. 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Gguf:
    """keys: name -> (type, offset of the value); tensors: name -> (rows, offset in the file, offset of its entry)."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            self.head = file.read(64 << 20)
        self.at = 0
        _, self.version, tensors, keys = self.take("4sIQQ")
        self.keys = {}
        for _ in range(keys):
            name = self.text()
            kind, = self.take("I")
            self.keys[name] = (kind, self.at)
            self.skip(kind)
        self.keys_end = self.at
        found = []
        for _ in range(tensors):
            entry = self.at
            name = self.text()
            dims, = self.take("I")
            shape = self.take(f"{dims}Q")
            kind, offset = self.take("IQ")
            found.append((name, shape, kind, offset, entry))
        self.header_end = self.at
        self.align = self.value("general.alignment") if "general.alignment" in self.keys else 32
        self.data = data = (self.at + self.align - 1) // self.align * self.align
        self.tensors = {name: (shape, data + offset, entry) for name, shape, _, offset, entry in found}

    def take(self, form):
        values = struct.unpack_from("<" + form, self.head, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def text(self):
        length, = self.take("Q")
        self.at += length
        return self.head[self.at - length:self.at].decode()

    def skip(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            element, count = self.take("IQ")
            if element in SCALARS:
                self.at += count * struct.calcsize("<" + SCALARS[element])
            else:
                for _ in range(count):
                    self.text()
        else:
            self.take(SCALARS[kind])

    def value(self, name):
        kind, at = self.keys[name]
        return struct.unpack_from("<" + SCALARS[kind], self.head, at)[0]

    def write_with_text(self, path, name, value):
        """A copy with one more key, a text. Tensors are found from where the header ends, which moves."""
        def text(words):
            return struct.pack("<Q", len(words.encode())) + words.encode()
        with open(self.path, "rb") as file:
            whole = file.read()
        count = struct.unpack_from("<Q", whole, 16)[0] + 1
        added = text(name) + struct.pack("<I", 8) + text(value)
        header = whole[:16] + struct.pack("<Q", count) + whole[24:self.keys_end] + added
        header += whole[self.keys_end:self.header_end]
        with open(path, "wb") as file:
            file.write(header + b"\0" * (-len(header) % self.align) + whole[self.data:])

    def record(self, layer, neuron, experts=False):
        """Offset of a neuron's record in a store."""
        shape, offset, _ = self.tensors[f"blk.{layer}.ffn_records" + ("_exps" if experts else "")]
        return offset + neuron * shape[0]


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
