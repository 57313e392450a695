// SPDX-License-Identifier: Apache-2.0
#include "handlers_fixture.h"

#include <map>

namespace colo::test {
namespace {

using qmp::test::json;
using schema::Object;
using schema::Value;

class SettingsTest : public HandlersTest {
protected:
    std::string set_error(const std::string& parameters) { return error("migrate-set-parameters", parameters); }
    std::string capability_error(std::initializer_list<const char*> names)
    {
        schema::Array array;
        for (const char* name : names) array.push_back(Object{{"capability", name}, {"state", true}});
        return error("migrate-set-capabilities", qmp::to_json(Object{{"capabilities", std::move(array)}}));
    }
    // The struct of settable parameters, as the schema file has it.
    static schema::Array parameter_schema()
    {
        const Value document = json(read_file(COLO_SCHEMA_DIR "/migration.json"));
        for (const Value& definition : *document.find("definitions")->as_array())
            if (*definition.find("name") == Value("MigrateSetParameters"))
                return *definition.find("members")->as_array();
        ADD_FAILURE() << "the schema has no MigrateSetParameters";
        return {};
    }
    static std::string read_file(const char* path);
};

std::string SettingsTest::read_file(const char* path)
{
    std::FILE* file = std::fopen(path, "rb");
    EXPECT_NE(file, nullptr) << path;
    std::string text(1 << 20, '\0');
    text.resize(file ? std::fread(text.data(), 1, text.size(), file) : 0);
    if (file) std::fclose(file);
    return text;
}

TEST_F(SettingsTest, CapabilitiesInOrderAllOff)
{
    const Value listed = result("query-migrate-capabilities");
    const auto& array = *listed.as_array();
    ASSERT_EQ(array.size(), 18u);
    for (const Value& entry : array) EXPECT_NE(*entry.find("capability"), Value("block"));  // not built in
    EXPECT_EQ(array.front(), json(R"({"capability": "xbzrle", "state": false})"));
    EXPECT_EQ(array.back(), json(R"({"capability": "background-snapshot", "state": false})"));
}

TEST_F(SettingsTest, CapabilitiesLastMentionWinsAllOrNothing)
{
    must("migrate-set-capabilities", R"({"capabilities": []})");
    must("migrate-set-capabilities", R"({"capabilities": [{"capability": "events", "state": true},
        {"capability": "multifd", "state": true}, {"capability": "events", "state": false}, {"capability": "postcopy-ram", "state": true},
        {"capability": "postcopy-ram", "state": false}]})");
    EXPECT_FALSE(control_.settings().enabled(schema::MigrationCapability::events));
    EXPECT_TRUE(control_.settings().enabled(schema::MigrationCapability::multifd));
    EXPECT_EQ(capability_error({"events", "block"}),
              "QEMU compiled without old-style (blk/-b, inc/-i) block migration");
    EXPECT_FALSE(control_.settings().enabled(schema::MigrationCapability::events));
}

TEST_F(SettingsTest, CapabilityConflictsAndMissingEngines)
{
    EXPECT_EQ(capability_error({"postcopy-ram", "x-ignore-shared"}), "Postcopy is not compatible with ignore-shared");
    const char* excluded[] = {"postcopy-ram",
                              "dirty-bitmaps",
                              "postcopy-blocktime",
                              "late-block-activate",
                              "return-path",
                              "multifd",
                              "pause-before-switchover",
                              "auto-converge",
                              "release-ram",
                              "rdma-pin-all",
                              "compress",
                              "xbzrle",
                              "x-colo",
                              "validate-uuid"};
    for (const char* other : excluded)
        EXPECT_EQ(capability_error({other, "background-snapshot"}),
                  "Background-snapshot is not compatible with " + std::string(other));
    EXPECT_EQ(capability_error({"multifd", "return-path", "background-snapshot"}),
              "Background-snapshot is not compatible with return-path");
    EXPECT_EQ(capability_error({"postcopy-ram", "x-ignore-shared", "background-snapshot", "multifd"}),
              "Postcopy is not compatible with ignore-shared");
    EXPECT_EQ(capability_error({"block", "postcopy-ram", "x-ignore-shared"}),
              "QEMU compiled without old-style (blk/-b, inc/-i) block migration");
    for (const char* works : {"xbzrle", "events", "x-colo", "return-path", "multifd", "validate-uuid"}) enable(works);
    for (const char* missing :
         {"rdma-pin-all", "auto-converge", "zero-blocks", "compress", "postcopy-ram", "release-ram",
          "dirty-bitmaps", "postcopy-blocktime", "late-block-activate", "x-ignore-shared"})
        EXPECT_EQ(capability_error({missing}).find("Capability '" + std::string(missing) + "' is not available: "), 0u);
}

TEST_F(SettingsTest, CapabilitiesOfADestination)
{
    service_.state = schema::RunState::inmigrate;
    EXPECT_EQ(capability_error({"postcopy-ram", "x-ignore-shared"}), "Postcopy is not supported");
    enable("multifd");
    enable("multifd", false);
    error("migrate-incoming", R"({"uri": "exec:cat"})");
    EXPECT_EQ(capability_error({"multifd"}), "multifd is not supported by current protocol");
    EXPECT_EQ(capability_error({"multifd", "background-snapshot"}),
              "Background-snapshot is not compatible with multifd");
    service_.outcome = make_error(Errc::failed, "Address already in use");
    error("migrate-incoming", R"({"uri": "tcp::0"})");
    enable("multifd");
    error("migrate-incoming", R"({"uri": "nonsense"})");
    EXPECT_EQ(capability_error({}), "multifd is not supported by current protocol");  // the resulting set counts
    service_.state = schema::RunState::running;
    enable("x-colo");
}

TEST_F(SettingsTest, DefaultsComeFromTheSchema)
{
    const Value current = result("query-migrate-parameters");
    for (const Value& member : parameter_schema()) {
        const std::string& name = *member.find("name")->as_string();
        const Value* value = current.find(name);
        const Value* expected = member.find("default");
        ASSERT_EQ(value != nullptr, expected != nullptr) << name;
        if (value) {
            EXPECT_EQ(*value, *expected) << name;
        }
    }
    EXPECT_EQ(current.as_object()->size(), 26u);
}

// Every range of the schema, one inside and one outside on both sides.
TEST_F(SettingsTest, RangesComeFromTheSchema)
{
    int checked = 0;
    for (const Value& member : parameter_schema()) {
        if (!member.find("min")) continue;
        ++checked;
        const std::string& name = *member.find("name")->as_string();
        const bool power = member.find("power-of-two") != nullptr;
        const auto number = [&](const char* which) {
            const Value& value = *member.find(which);
            return value.as_uint64() ? *value.as_uint64() : static_cast<std::uint64_t>(*value.as_int64());
        };
        const std::uint64_t min = number("min"), max = number("max");
        std::string spelled = name;
        std::ranges::replace(spelled, '-', '_');
        const std::string refused = "Parameter '" + spelled + "' expects " + *member.find("expects")->as_string();
        const auto one = [](const std::string& key, std::uint64_t value) { return qmp::to_json(Object{{key, value}}); };
        const bool tied = name == "max-cpu-throttle" || name == "cpu-throttle-initial";  // to each other
        must("migrate-set-parameters", one(name, max));
        if (!tied) must("migrate-set-parameters", one(name, min));
        const bool whole_type = max == 255 && *member.find("type") == Value("uint8");
        std::vector<std::uint64_t> outside;
        if (!whole_type) outside.push_back(power ? max - 1 : max + 1);
        if (min > 0) outside.push_back(power ? min / 2 : min - 1);
        if (power) outside.push_back(min + 1);
        for (const std::uint64_t value : outside) EXPECT_EQ(set_error(one(name, value)), refused);
        const std::uint64_t kept = tied ? max : min;
        EXPECT_EQ(*result("query-migrate-parameters").find(name), Value(kept)) << name;
    }
    EXPECT_EQ(checked, 16);
}

// The same once more, written down by hand: a slip in the schema must not move a default or a bound unnoticed.
TEST_F(SettingsTest, EveryParameterHasItsKnownDefaultAndBounds)
{
    struct Known {
        const char* name;
        Value usual;
        std::optional<std::uint64_t> lowest, highest;  // that are accepted; none: not a matter of range
        const char* expects;
    };
    const char* ms_packets = "a value between 0 and 100000";
    const char* level = "a value between 0 and 9";
    const char* threads = "a value between 1 and 255";
    const char* percent = "an integer in the range of 1 to 99";
    const Known known[] = {
        {"announce-initial", 50, 0, 100000, ms_packets},
        {"announce-max", 550, 0, 100000, ms_packets},
        {"announce-rounds", 5, 0, 1000, "a value between 0 and 1000"},
        {"announce-step", 100, 1, 10000, "a value between 0 and 10000"},
        {"compress-level", 1, 0, 9, level},
        {"compress-threads", 8, 1, 255, threads},
        {"compress-wait-thread", true, {}, {}, ""},
        {"decompress-threads", 2, 1, 255, threads},
        {"throttle-trigger-threshold", 50, 1, 100, "an integer in the range of 1 to 100"},
        {"cpu-throttle-initial", 20, 1, 99, percent},
        {"cpu-throttle-increment", 10, 1, 99, percent},
        {"cpu-throttle-tailslow", false, {}, {}, ""},
        {"tls-creds", "", {}, {}, ""},
        {"tls-hostname", "", {}, {}, ""},
        {"tls-authz", "", {}, {}, ""},
        {"max-bandwidth", 134217728, 0, ~std::uint64_t{0}, ""},
        {"downtime-limit", 300, 0, 2000000, "an integer in the range of 0 to (2000 * 1000) ms"},
        {"x-checkpoint-delay", 20000, 0, 4294967295, ""},
        {"block-incremental", false, {}, {}, ""},
        {"multifd-channels", 2, 1, 255, threads},
        {"xbzrle-cache-size", 67108864, 4096, std::uint64_t{1} << 63,
         "a power of two no less than the target page size"},
        {"max-postcopy-bandwidth", 0, 0, ~std::uint64_t{0}, ""},
        {"max-cpu-throttle", 99, 20, 99, "an integer in the range of cpu_throttle_initial to 99"},
        {"multifd-compression", "none", {}, {}, ""},
        {"multifd-zlib-level", 1, 0, 9, level},
        {"multifd-zstd-level", 1, 0, 20, "a value between 0 and 20"},
    };
    const Value current = result("query-migrate-parameters");
    EXPECT_EQ(current.as_object()->size(), std::size(known));
    for (const Known& one : known) {
        ASSERT_TRUE(current.find(one.name)) << one.name;
        EXPECT_EQ(*current.find(one.name), one.usual) << one.name;
        if (!one.lowest) continue;
        const auto with = [&](std::uint64_t value) { return qmp::to_json(Object{{one.name, value}}); };
        std::string spelled = one.name;
        std::ranges::replace(spelled, '-', '_');
        const std::string refused = "Parameter '" + spelled + "' expects " + one.expects;
        must("migrate-set-parameters", with(*one.lowest));
        must("migrate-set-parameters", with(*one.highest));
        must("migrate-set-parameters", qmp::to_json(Object{{one.name, one.usual}}));
        if (*one.expects == '\0') continue;
        if (*one.lowest > 0) {
            EXPECT_EQ(set_error(with(*one.lowest - 1)), refused);
        }
        if (*one.highest != 255) {
            EXPECT_EQ(set_error(with(*one.highest + 1)), refused);
        }
    }
    EXPECT_EQ(result("query-migrate-parameters"), current);
}

TEST_F(SettingsTest, ParametersAreAllOrNothingAndMerged)
{
    const Value before = result("query-migrate-parameters");
    EXPECT_EQ(set_error(R"({"max-bandwidth": 5, "compress-level": 10})"),
              "Parameter 'compress_level' expects a value between 0 and 9");
    EXPECT_EQ(set_error(R"({"announce-step": 0})"), "Parameter 'announce_step' expects a value between 0 and 10000");
    EXPECT_EQ(result("query-migrate-parameters"), before);
    must("migrate-set-parameters");
    must("migrate-set-parameters", R"({"max-cpu-throttle": 50})");
    EXPECT_EQ(set_error(R"({"cpu-throttle-initial": 51})"),
              "Parameter 'max_cpu_throttle' expects an integer in the range of cpu_throttle_initial to 99");
    must("migrate-set-parameters", R"({"cpu-throttle-initial": 60, "max-cpu-throttle": 60})");
    // Old clients send -1 for "as much as possible".
    must("migrate-set-parameters", R"({"max-bandwidth": -1, "x-checkpoint-delay": 0})");
    EXPECT_EQ(*result("query-migrate-parameters").find("max-bandwidth"), Value(~std::uint64_t{0}));
    EXPECT_EQ(set_error(R"({"x-checkpoint-delay": -1})"), "Parameter 'x-checkpoint-delay' expects uint32_t");
    EXPECT_EQ(set_error(R"({"multifd-compression": "lz4"})"),
              "Parameter 'multifd-compression' does not accept value 'lz4'");
}

TEST_F(SettingsTest, TlsStringsTakeNull)
{
    must("migrate-set-parameters", R"({"tls-hostname": "h", "tls-authz": "z", "tls-creds": ""})");
    EXPECT_EQ(*result("query-migrate-parameters").find("tls-hostname"), Value("h"));
    must("migrate-set-parameters", R"({"tls-hostname": null, "tls-authz": null, "tls-creds": null})");
    for (const char* name : {"tls-hostname", "tls-authz", "tls-creds"})
        EXPECT_EQ(*result("query-migrate-parameters").find(name), Value("")) << name;
    // Which credentials exist is looked up by the migration, not here.
    must("migrate-set-parameters", R"({"tls-creds": "tls0"})");
    EXPECT_EQ(*result("query-migrate-parameters").find("tls-creds"), Value("tls0"));
    must("migrate-set-parameters", R"({"tls-creds": null})");
    // A stream that is awaited already would come without them.
    service_.addresses = {{schema::SocketAddressUnix{.path = "/x", .abstract = {}, .tight = {}}}};
    service_.state = schema::RunState::inmigrate;
    EXPECT_EQ(set_error(R"({"tls-creds": "tls0"})"), "No TLS credentials with id 'tls0'");
    must("migrate-set-parameters", R"({"tls-creds": ""})");
    EXPECT_EQ(set_error(R"({"tls-creds": 7})"), "Invalid parameter type for 'tls-creds', expected: StrOrNull");
}

TEST_F(SettingsTest, BitmapMapping)
{
    const auto mapping = [](const std::string& nodes) { return R"({"block-bitmap-mapping": [)" + nodes + "]}"; };
    const auto node = [](const std::string& name, const std::string& alias, const std::string& bitmaps = "") {
        return R"({"node-name": ")" + name + R"(", "alias": ")" + alias + R"(", "bitmaps": [)" + bitmaps + "]}";
    };
    const auto bitmap = [](const std::string& name, const std::string& alias) {
        return R"({"name": ")" + name + R"(", "alias": ")" + alias + R"("})";
    };
    const std::string start = "Invalid mapping given for block-bitmap-mapping: ";
    const std::map<std::string, std::string> refused = {
        {node("n", "1a"), "The node alias '1a' is not well-formed"},
        {node("n", ""), "The node alias '' is not well-formed"},
        {node("n", "a b"), "The node alias 'a b' is not well-formed"},
        {node("n", std::string(256, 'a')), "The node alias '" + std::string(256, 'a') + "' is longer than 255 bytes"},
        {node(std::string(32, 'n'), "a"), "The node name '" + std::string(32, 'n') + "' is longer than 31 bytes"},
        {node("n", "a") + "," + node("n", "b"), "The node name 'n' is mapped twice"},
        {node("n", "a") + "," + node("m", "a"), "The node alias 'a' is used twice"},
        {node("n", "a", bitmap("b", std::string(256, 'c'))),
         "The bitmap alias '" + std::string(256, 'c') + "' is longer than 255 bytes"},
        {node("n", "a", bitmap(std::string(1024, 'b'), "c")),
         "The bitmap name '" + std::string(1024, 'b') + "' is longer than 1023 bytes"},
        {node("n", "a", bitmap("b", "c") + "," + bitmap("b", "d")), "The bitmap 'n'/'b' is mapped twice"},
        {node("n", "a", bitmap("b", "c") + "," + bitmap("d", "c")), "The bitmap alias 'a'/'c' is used twice"},
    };
    for (const auto& [nodes, text] : refused) EXPECT_EQ(set_error(mapping(nodes)), start + text);
    EXPECT_EQ(result("query-migrate-parameters").find("block-bitmap-mapping"), nullptr);
    const std::string good =
        mapping(R"({"node-name": "n", "alias": "a-._9", "bitmaps": [{"name": "b", "alias": "c", "transform": {}},
        {"name": "d", "alias": "e", "transform": {"persistent": true}}]})");
    must("migrate-set-parameters", good);
    EXPECT_EQ(*result("query-migrate-parameters").find("block-bitmap-mapping"),
              *json(good).find("block-bitmap-mapping"));
    must("migrate-set-parameters", mapping(""));
    EXPECT_EQ(*result("query-migrate-parameters").find("block-bitmap-mapping"), Value(schema::Array()));
}

TEST_F(SettingsTest, ChangesAreReportedToTheDaemon)
{
    int calls = 0;
    std::optional<std::uint32_t> delay;
    control_.settings().on_parameters = [&](const schema::MigrateSetParameters& changed) {
        ++calls;
        delay = changed.x_checkpoint_delay;
        EXPECT_EQ(control_.settings().parameters().x_checkpoint_delay, 250u);
    };
    must("migrate-set-parameters", R"({"x-checkpoint-delay": 250})");
    EXPECT_EQ(delay, 250u);
    set_error(R"({"compress-level": 10})");
    EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace colo::test
