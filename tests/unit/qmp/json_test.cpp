// SPDX-License-Identifier: Apache-2.0
#include "qmp/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace colo::qmp {
namespace {

using schema::Array;
using schema::Object;
using schema::Value;
using ::testing::ElementsAre;
using Type = Value::Type;

// Everything that a stream yields, values as JSON, errors as "! text".
std::vector<std::string> all(std::string_view stream, std::size_t piece = std::string_view::npos)
{
    MessageParser parser;
    std::vector<std::string> result;
    while (!stream.empty()) {
        std::string_view part = stream.substr(0, piece);
        stream.remove_prefix(part.size());
        while (!part.empty())
            if (auto message = parser.next(part))
                result.push_back(*message ? to_json(**message) : "! " + message->error().text);
    }
    return result;
}

std::string one(std::string_view text)
{
    auto value = parse_json(text);
    return value ? to_json(*value) : "! " + value.error().text;
}

TEST(Json, AcceptsAndPrints)
{
    const std::pair<const char*, const char*> cases[] = {
        {"null", "null"},
        {"true", "true"},
        {"false", "false"},
        {"0", "0"},
        {"-0", "0"},
        {"-7", "-7"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"9223372036854775808", "9223372036854775808"},
        {"18446744073709551615", "18446744073709551615"},
        {"18446744073709551616", "1.8446744073709552e+19"},
        {"-9223372036854775809", "-9.2233720368547758e+18"},
        {"1.0", "1"},
        {"1e3", "1000"},
        {"-1.5E-2", "-0.014999999999999999"},
        {"0.1", "0.10000000000000001"},
        {"1E+2", "100"},
        {"1e999", "1e999"},
        {"-1e999", "-1e999"},
        {"1e-999", "0"},
        {"[]", "[]"},
        {"{}", "{}"},
        {"[ 1 ,\t2\r\n]", "[1, 2]"},
        {R"({"a":1,"b":[{}]})", R"({"a": 1, "b": [{}]})"},
        {R"("a\"b\\c\/d\b\f\n\r\t")", R"("a\"b\\c/d\b\f\n\r\t")"},
        {R"('a"b')", R"("a\"b")"},
        {R"('a\'b')", R"("a'b")"},
        {R"("a\'b")", R"("a'b")"},
        {R"("\u0041\u00e9\u20AC\ud83d\ude00")", R"("A\u00E9\u20AC\uD83D\uDE00")"},
        {"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", R"("\u00E9\u20AC\uD83D\uDE00")"},
        {R"("\u0000x")", R"("\u0000x")"},
        {"\"\xc0\x80\"", R"("\u0000")"},
        {"\"\x7f\"", R"("\u007F")"},
        {R"("%s %d")", R"("%s %d")"},
        {R"({"":""})", R"({"": ""})"},
    };
    for (const auto& [text, expected] : cases) EXPECT_EQ(one(text), expected) << text;
}

TEST(Json, KeepsNumberKindsApart)
{
    EXPECT_EQ(parse_json("1")->type(), Type::int64);
    EXPECT_EQ(parse_json("9223372036854775808")->type(), Type::uint64);
    EXPECT_EQ(parse_json("1.0")->type(), Type::real);
    EXPECT_EQ(parse_json("1e3")->type(), Type::real);
    EXPECT_EQ(parse_json("18446744073709551616")->type(), Type::real);
    EXPECT_NE(Value(1), Value(1.0));
    EXPECT_EQ(Value(std::uint64_t{7}), Value(7));
    EXPECT_EQ(*parse_json(R"({"a":1,"b":2})"), *parse_json(R"({"b":2,"a":1})"));
}

TEST(Json, RequestLevelErrors)
{
    const std::pair<const char*, const char*> cases[] = {
        {"}", "expecting value"},
        {"]", "expecting value"},
        {",", "expecting value"},
        {":", "expecting value"},
        {"[,]", "expecting value"},
        {"[1,]", "expecting value"},
        {R"({"a":})", "expecting value"},
        {R"({"a":1,})", "expecting value"},
        {R"({"a"})", "missing : in object pair"},
        {R"({"a" 1})", "missing : in object pair"},
        {"{1:2}", "key is not a string in object"},
        {"{null:2}", "key is not a string in object"},
        {"{[]:2}", "key is not a string in object"},
        {R"({"a":1 "b":2})", "expected separator in dict"},
        {R"({"a":1])", "expected separator in dict"},
        {"[1 2]", "expected separator in list"},
        {"[1}", "expected separator in list"},
        {R"({"a":1,"a":2})", "duplicate key"},
        {"nope", "invalid keyword 'nope'"},
        {"[nul]", "invalid keyword 'nul'"},
        {R"("\x41")", "invalid escape sequence in string"},
        {R"("\u12G4")", R"(\u12G4 is not a valid Unicode character)"},
        {R"("\u12")", R"(\u12" is not a valid Unicode character)"},
        {R"("\u")", R"(\u" is not a valid Unicode character)"},
        {R"("\ud800\u00")", R"(\ud800 is not a valid Unicode character)"},
        {R"("\ud800\n")", R"(\ud800 is not a valid Unicode character)"},
        {R"(["\x", "\u"])", "invalid escape sequence in string"},
        {R"({"id":0e1})", "expected separator in dict"},
        {"{[}]", "expecting value"},
        {R"({"a":{])", "expecting value"},
        {"truefalse", "invalid keyword 'truefalse'"},
        {R"("\ud800")", R"(\ud800 is not a valid Unicode character)"},
        {R"("\uDC00")", R"(\uDC00 is not a valid Unicode character)"},
        {R"("\ud800\u0041")", R"(\ud800 is not a valid Unicode character)"},
        {R"("\uffff")", R"(\uffff is not a valid Unicode character)"},
        {R"("\uFDD0")", R"(\uFDD0 is not a valid Unicode character)"},
        {"\"\x80\"", "invalid UTF-8 sequence in string"},
        {"\"\xc3\"", "invalid UTF-8 sequence in string"},
        {"\"\xc1\x81\"", "invalid UTF-8 sequence in string"},
        {"\"\xe0\x80\x80\"", "invalid UTF-8 sequence in string"},
        {"\"\xed\xa0\x80\"", "invalid UTF-8 sequence in string"},
        {"\"\xef\xbf\xbf\"", "invalid UTF-8 sequence in string"},
        {"\"\xf4\x90\x80\x80\"", "invalid UTF-8 sequence in string"},
        {"\"\xf0\x9f\xbf\xbe\"", "invalid UTF-8 sequence in string"},
    };
    for (const auto& [text, expected] : cases) {
        const std::string stream = std::string(text) + "\n 7 ";
        EXPECT_THAT(all(stream), ElementsAre("! JSON parse error, " + std::string(expected), "7")) << text;
    }
}

TEST(Json, StrayBytesAndRecovery)
{
    EXPECT_THAT(all("{\"execute\":\"query-name\",\"id\":+1}"),
                ElementsAre("! JSON parse error, stray '+'", "! JSON parse error, expecting value"));
    EXPECT_THAT(all("\xff{}"), ElementsAre("! JSON parse error, stray '\xff'", "{}"));
    EXPECT_THAT(all("[1,2 \xff [3]"), ElementsAre("! JSON parse error, stray '\xff'", "[3]"));
    EXPECT_THAT(all("\"ab\x01 cd\n{}"), ElementsAre("! JSON parse error, stray '\"ab\x01'", "{}"));
    EXPECT_THAT(all("\"a\tb\"\n[]"), ElementsAre("! JSON parse error, stray '\"a\t'", "[]"));
    EXPECT_THAT(all("01\n2 "), ElementsAre("! JSON parse error, stray '01'", "2"));
    EXPECT_THAT(all("1.\n"), ElementsAre("! JSON parse error, stray '1.\n'"));
    EXPECT_THAT(all(".5\n"), ElementsAre("! JSON parse error, stray '.'"));
    EXPECT_THAT(all("-\n\n1e+\n\n1e\n"),
                ElementsAre("! JSON parse error, stray '-\n'", "! JSON parse error, stray '1e+\n'",
                            "! JSON parse error, stray '1e\n'"));
    EXPECT_THAT(all("# a comment\n7\n"), ElementsAre("! JSON parse error, stray '#'", "7"));
    EXPECT_THAT(all("True\n"), ElementsAre("! JSON parse error, stray 'T'"));
    EXPECT_THAT(all("trueX\n"), ElementsAre("true", "! JSON parse error, stray 'X'"));
    EXPECT_THAT(all("%s\n"), ElementsAre("! JSON parse error, stray '%'"));
    EXPECT_THAT(all("1\xff\n"), ElementsAre("1", "! JSON parse error, stray '\xff'"));
    EXPECT_THAT(all("nul\xff\n"),
                ElementsAre("! JSON parse error, invalid keyword 'nul'", "! JSON parse error, stray '\xff'"));
    EXPECT_THAT(all("0e1\n"), ElementsAre("0", "! JSON parse error, invalid keyword 'e'", "1"));
    EXPECT_THAT(all("1.5.2\n"), ElementsAre("1.5", "! JSON parse error, stray '.'"));
    EXPECT_THAT(all("-01\n"), ElementsAre("! JSON parse error, stray '-01'"));
    EXPECT_THAT(all("\x0b\n7 "), ElementsAre("! JSON parse error, stray '\x0b'", "7"));
    // A zero byte ends the text that is shown.
    EXPECT_THAT(all(std::string_view("\"ab\0 cd\n7 ", 10)), ElementsAre("! JSON parse error, stray '\"ab'", "7"));
    // Of a mistake in the order of tokens a part is shown, of a stray token everything.
    const std::string keyword = "invalid keyword '" + std::string(5000, 'q');
    EXPECT_THAT(all(std::string(5000, 'q') + " "), ElementsAre("! JSON parse error, " + keyword.substr(0, 1023)));
    EXPECT_THAT(all("\"" + std::string(5000, 'y') + "\n"),
                ElementsAre("! JSON parse error, stray '\"" + std::string(5000, 'y') + "\n'"));
    // A tab does not end the skipping, a structural character does.
    EXPECT_THAT(all("*\t[1]"), ElementsAre("! JSON parse error, stray '*'", "[1]"));
    EXPECT_THAT(all("*\t7\n8 "), ElementsAre("! JSON parse error, stray '*'", "8"));
}

TEST(Json, FramingDoesNotNeedNewlines)
{
    const std::string stream = "{}{\"a\":[1,{}]}[]\"x\"true false-1 2\n\n{\"b\"\n:\r\n2}";
    const auto whole = all(stream);
    EXPECT_THAT(whole,
                ElementsAre("{}", R"({"a": [1, {}]})", "[]", "\"x\"", "true", "false", "-1", "2", R"({"b": 2})"));
    for (const std::size_t piece : {1u, 2u, 3u, 7u}) EXPECT_EQ(all(stream, piece), whole) << piece;
}

TEST(Json, ParseJsonWantsExactlyOneValue)
{
    EXPECT_EQ(one(" 12 "), "12");
    EXPECT_EQ(one("12"), "12");
    EXPECT_EQ(one("true"), "true");
    for (const char* text : {"", "  ", "[1", "1 2", "{} x", "[] [", "\"abc", "{}\""})
        EXPECT_FALSE(parse_json(text)) << text;
}

// Whole tokens are found in another way than those that come in pieces; a byte at a time, hardly one is whole.
TEST(JsonStream, TokensMeanTheSameInPieces)
{
    const char* parts[] = {"0",     "-0",   "7",    "-12",  "01",    "-",       "1.",    "1.5",   "0.5",  "1e",
                           "1e5",   "0e1",  "1E+",  "1E+3", "1.5e-", "1.5e-2",  "0.5e3", "-.5",   "--1",  "1-",
                           "true",  "nul",  "a",    "Z",    "\"\"",  "\"ab\"",  "'a'",   "\"a'\"", "'\"'", "\"\\\"\"",
                           "\"\\n\"", "\"a",  "'",    "\"\x01", "\"\xc3\xa4\"", "\xff", "\x01",  "[",     "]",    "{",
                           "}",     ":",    ",",    " ",    "\n",    "\t",      "18446744073709551616"};
    for (const char* before : {"", "[", "[1, "})
        for (const char* one_part : parts)
            for (const char* other : parts) {
                const std::string stream = std::string(before) + one_part + other + " ]\xff[2]";
                EXPECT_EQ(all(stream), all(stream, 1)) << stream;
                EXPECT_EQ(all(stream), all(stream, 3)) << stream;
            }
}

std::string repeat(const char* text, std::size_t times)
{
    std::string result;
    for (std::size_t i = 0; i < times; ++i) result += text;
    return result;
}

TEST(JsonLimits, Nesting)
{
    EXPECT_EQ(one(std::string(kMaxNesting, '[') + std::string(kMaxNesting, ']')).size(), 2 * kMaxNesting);
    const std::string objects = repeat("{\"a\":", kMaxNesting) + "1" + std::string(kMaxNesting, '}');
    EXPECT_TRUE(parse_json(objects));
    // Reported at the bracket that is one too many; the rest is new input.
    EXPECT_THAT(all(std::string(kMaxNesting + 1, '[') + "{}"),
                ElementsAre("! JSON nesting depth limit exceeded", "{}"));
}

TEST(JsonLimits, Tokens)
{
    // [ 0 , 0 , ... 0 ]: 2 + 2n - 1 tokens.
    const std::size_t values = (kMaxTokens - 2) / 2;
    EXPECT_TRUE(parse_json("[0" + repeat(",0", values - 1) + "]"));
    MessageParser parser;
    const std::string over = "[0" + repeat(",0", values + 1);
    std::string_view rest = over;
    const auto message = parser.next(rest);
    ASSERT_TRUE(message && !*message);
    EXPECT_EQ(message->error().text, "JSON token count limit exceeded");
    EXPECT_EQ(message->error().code, Errc::limit);
    EXPECT_EQ(parser.held(), 0u);
}

TEST(JsonLimits, Bytes)
{
    const std::string half(kMaxTokenBytes / 2, 'x');
    EXPECT_TRUE(parse_json("\"" + half + "\""));
    EXPECT_EQ(one("[\"" + half + "\",\"" + half + "\"]"), "! JSON token size limit exceeded");
    // One token without end: reported as soon as the limit is passed, and the memory is given back.
    MessageParser parser;
    std::size_t fed = 0;
    std::string_view start = "\"";
    EXPECT_FALSE(parser.next(start));
    for (;;) {
        std::string_view piece = half;
        const auto message = parser.next(piece);
        fed += half.size() - piece.size();
        if (!message) continue;
        EXPECT_EQ(message->error().text, "JSON token size limit exceeded");
        break;
    }
    EXPECT_EQ(fed, kMaxTokenBytes);
}

TEST(JsonLimits, ManyKeysAreNotQuadratic)
{
    std::string text = "{\"k0\":0";
    for (int i = 1; i < 200'000; ++i) text += ",\"k" + std::to_string(i) + "\":0";
    EXPECT_TRUE(parse_json(text + "}"));
    EXPECT_EQ(one(text + ",\"k7\":1}"), "! JSON parse error, duplicate key");
    EXPECT_EQ(one(text + ",\"k7\":1,nope}"), "! JSON parse error, duplicate key");  // the first mistake is told
}

TEST(JsonWriter, InvalidUtf8AndLayout)
{
    // One replacement for each sequence that belongs together.
    const std::pair<const char*, const char*> cases[] = {
        {"a\xff\xfe\xc3", R"("a\uFFFD\uFFFD\uFFFD")"},
        {"\xe2\x82(", R"("\uFFFD(")"},
        {"\xe0\x80\x80", R"("\uFFFD")"},
        {"\xed\xa0\x80", R"("\uFFFD")"},
        {"\x80\x80", R"("\uFFFD\uFFFD")"},
        {"\xf4\x90\x80\x80", R"("\uFFFD")"},
        {"\xf8\x88\x80\x80\x80", R"("\uFFFD")"},
        {"\xfc\x84\x80\x80\x80\x80", R"("\uFFFD")"},
        {"\xf8\x80"
         "a",
         R"("\uFFFDa")"},
    };
    for (const auto& [text, expected] : cases) EXPECT_EQ(to_json(Value(text)), expected);
    EXPECT_EQ(to_json(*parse_json(R"({"a":[1,2],"b":{},"c":[]})"), Style::indented),
              "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": {},\n  \"c\": []\n}");
}

Value random_value(std::mt19937& random, int depth)
{
    const auto pick = [&](unsigned limit) { return random() % limit; };
    switch (pick(depth > 0 ? 8 : 6)) {
    case 0: return nullptr;
    case 1: return pick(2) == 0;
    case 2: return static_cast<std::int64_t>((std::uint64_t{random()} << 32) | random());
    case 3: return (std::uint64_t{random()} << 32) | random();
    case 4: return std::ldexp(static_cast<double>(random()), static_cast<int>(pick(600)) - 300);
    case 5: {
        std::string text;
        for (auto i = pick(12); i > 0; --i) text += static_cast<char>(pick(0x80));
        return text;
    }
    case 6: {
        Array array;
        for (auto i = pick(4); i > 0; --i) array.push_back(random_value(random, depth - 1));
        return array;
    }
    default: {
        Object object;
        for (auto i = pick(4); i > 0; --i) object.set(std::to_string(pick(100)), random_value(random, depth - 1));
        return object;
    }
    }
}

TEST(Json, RoundTripOfRandomValues)
{
    std::mt19937 random(1);
    for (int i = 0; i < 3000; ++i) {
        const Value value = random_value(random, 5);
        const auto line = parse_json(to_json(value));
        ASSERT_TRUE(line);
        // Doubles with an integral value come back as integers; compare what would be printed.
        EXPECT_EQ(to_json(*line), to_json(value)) << "value " << i;
        EXPECT_EQ(to_json(*parse_json(to_json(value, Style::indented))), to_json(value));
    }
}

// Mutated requests: no crash, bounded memory, and the same result in whatever pieces the bytes arrive. After a byte FF
// and a line end the stream is in step again.
TEST(Json, SeededMutations)
{
    const std::string seeds[] = {
        R"({"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1000, "tls-creds": null}, "id": [1, -2.5e3]})",
        R"({"execute":'stop',"id":"\ud83d\ude00\u0041 é"}{"execute": "cont"} [true, false, null, "x\\y"] 18446744073709551615 )",
        "\xff\n{\"a\":{\"b\":[[[[{}]]]]}}",
    };
    const std::string spice = "{}[]:,\"'\\u0tfn1.eE-+ \t\n\xff\xfe\xc0\x80\x01%";
    for (unsigned seed = 0; seed < 4000; ++seed) {
        std::mt19937 random(seed);
        std::string text = seeds[seed % 3];
        for (auto n = 1 + random() % 6; n > 0; --n) {
            const std::size_t at = random() % text.size();
            switch (random() % 4) {
            case 0: text[at] = spice[random() % spice.size()]; break;
            case 1: text.insert(at, 1, spice[random() % spice.size()]); break;
            case 2: text.erase(at, 1 + random() % 5); break;
            default: text.insert(at, text.substr(random() % text.size(), random() % 20)); break;
            }
            if (text.empty()) text = " ";
        }
        text += "\xff\n{\"resync\":1}";
        const auto whole = all(text);
        ASSERT_FALSE(whole.empty());
        EXPECT_EQ(whole.back(), R"({"resync": 1})") << "seed " << seed;
        EXPECT_EQ(all(text, 1), whole) << "seed " << seed;
        EXPECT_EQ(all(text, 1 + random() % 9), whole) << "seed " << seed;
    }
}

}  // namespace
}  // namespace colo::qmp
